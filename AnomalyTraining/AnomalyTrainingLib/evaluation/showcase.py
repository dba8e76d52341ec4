"""All demonstrations side by side: one contrast a process, then one summary."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from queue import Empty
from typing import Any

from AnomalyDetectionLib.interop.overlay import contact_sheet

from ..synthesis.lesions import LesionRequest
from .demonstration import AUTOENCODER_CHANGES, Outcome, Plan, demonstrate
from .scene import SceneMissing, write_case_scene

PLANS = (
    Plan("t1", LesionRequest("tumour")),
    Plan("flair", LesionRequest("plaques", {"left": 1}), autoencoder=AUTOENCODER_CHANGES),
)
"""A tumour with oedema and mass effect in T1-like images; three small plaques, one of them surely in the patient's left
hemisphere, in FLAIR-like ones, where a small autoencoder is trained too."""

SCENE = "scene.mrb"

PLAIN = "voxel_intensity"
"""The baseline that a model must beat to be worth its computing time."""

Messages = Any
"""A queue of (contrast, stage, share of the whole); the managed queues of multiprocessing have no public type."""


def demonstrate_all(
    out: Path,
    *,
    plans: Sequence[Plan] = PLANS,
    workers: int = 2,
    progress: Callable[[str, float], None] = lambda stage, fraction: None,
) -> str:
    """Run every plan into `out/CONTRAST`, write `contact_sheet.png` and `scene.mrb`, return the closing words.

    Registration runs on one core, so two contrasts at a time use two cores.

    Raises
    ------
    InputError
        If `out` holds something made with other plans, or cannot be written.
    """
    out = out.absolute()
    outcomes = _run(out, plans, max(1, min(workers, len(plans))), progress)
    overlays = {f"{o.contrast.upper()}  {title}": path for o in outcomes for title, path in o.overlays.items()}
    contact_sheet(list(overlays.values()), list(overlays), out / "contact_sheet.png")
    return closing_words(out, outcomes, _write_scene(out / SCENE, outcomes))


def _write_scene(path: Path, outcomes: Sequence[Outcome]) -> str:
    """Put the case with a lesion of each contrast into a scene; returns why there is none, or ""."""
    try:
        write_case_scene([outcome.example for outcome in outcomes], path)
    except SceneMissing as reason:
        path.unlink(missing_ok=True)  # one of an earlier run would not be of these results
        return str(reason)
    return ""


def _run(out: Path, plans: Sequence[Plan], workers: int, progress: Callable[[str, float], None]) -> list[Outcome]:
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 2) // workers)
    with context.Manager() as manager:
        messages = manager.Queue()
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_limit_threads, initargs=(threads,))
        try:
            jobs = [pool.submit(_demonstrate, plan, out / plan.contrast, messages) for plan in plans]
            _follow(jobs, messages, {plan.contrast: sum(plan.stages.values()) for plan in plans}, workers, progress)
            return [job.result() for job in jobs]
        except BaseException:
            # A run can be resumed from what is on disk, so its processes need not be waited for.
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _limit_threads(count: int) -> None:
    import SimpleITK
    import torch

    torch.set_num_threads(count)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(count)


def _demonstrate(plan: Plan, out: Path, messages: Messages) -> Outcome:
    return demonstrate(plan, out, lambda stage, share: messages.put((plan.contrast, stage, share)))


def _follow(
    jobs: Sequence[Future[Outcome]],
    messages: Messages,
    times: Mapping[str, float],
    workers: int,
    progress: Callable[[str, float], None],
) -> None:
    """Pass on what the processes report until all have ended or one has failed."""
    shares = dict.fromkeys(times, 0.0)
    stages: dict[str, str] = {}
    pending = set(jobs)
    while pending:
        done, pending = wait(pending, timeout=0.3, return_when=FIRST_COMPLETED)
        if any(job.exception() for job in done):
            return
        try:
            while True:
                contrast, stage, share = messages.get_nowait()
                shares[contrast], stages[contrast] = share, stage
        except Empty:
            pass
        if stages:
            words = "; ".join(
                f"{contrast.upper()}: {stage}" for contrast, stage in sorted(stages.items()) if shares[contrast] < 1
            )
            progress(words or "finishing", share_of_all(shares, times, workers))


def share_of_all(shares: Mapping[str, float], times: Mapping[str, float], workers: int) -> float:
    """How much of the whole time is over.

    Parameters
    ----------
    shares
        What each job has done of its own work.
    times
        What each job takes, in any unit.
    workers
        Jobs that run at a time; more jobs run one after the other.
    """
    if workers < len(times):
        return sum(times[name] * share for name, share in shares.items()) / sum(times.values())
    left = max(times[name] * (1 - share) for name, share in shares.items())
    return 1 - left / max(times.values())


def closing_words(out: Path, outcomes: Sequence[Outcome], no_scene: str = "") -> str:
    """What was made, the figures, and what to do next; `no_scene` says why there is no scene."""
    lines = ["", f"Made in {out}:"]
    for outcome in outcomes:
        for method, bundle in outcome.bundles.items():
            place = bundle.relative_to(out).as_posix()
            lines.append(f"  {place}   the {method} model for {outcome.contrast.upper()}-like images")
            results = bundle.with_name("results").relative_to(out).as_posix()
            lines.append(f"  {results}   map, findings, report and picture of each held-out case")
        lines.append(f"  {outcome.contrast}/evaluation   report.html, metrics.json, scores.csv, plots")
    lines.append("  contact_sheet.png   all pictures on one sheet")
    lines += [
        f"  {no_scene}" if no_scene else f"  {SCENE}   the cases with lesions, to open in 3D Slicer (5.12 or newer)",
        "",
    ]
    for outcome in outcomes:
        lines += _figures(outcome)
    example = next(iter(outcomes[0].bundles.values()))
    lines += [
        "These brains are simulated and few: the figures show that the software works, not how it does on patients.",
        "With one lesion case a contrast no difference between methods is certain, as the reports say.",
        "",
        "Next, with your own normal scans (a folder of NIfTI files, or `cohort dicom` for DICOM):",
        "  .venv/bin/slicer-anomaly cohort folder NORMALS --split --out cohort.csv",
        "  .venv/bin/slicer-anomaly train zscore_brain --cohort cohort.csv --out run",
        "  .venv/bin/slicer-anomaly export run --out my_model",
        "  .venv/bin/slicer-anomaly score my_model PATIENT --out results",
        "or score an image (skull-stripped T1) with the model just made:",
        f"  .venv/bin/slicer-anomaly score {example} IMAGE --out results",
    ]
    return "\n".join(lines)


def _figures(outcome: Outcome) -> list[str]:
    """A small table of one contrast's cases and methods, and in words which model is worth its computing time."""
    lines = [f"{outcome.contrast.upper()}-like, judged by zscore"]
    for row in outcome.metrics["cases"]["zscore"]:
        verdict = outcome.scores[row["case"]]
        hits = sum(lesion["hit"] for lesion in row["lesions"])
        found = f"{hits} of {len(row['lesions'])} lesions found, " if row["lesions"] else "normal, "
        lines.append(
            f"  {row['case']:<20} {found}{row['false_findings']} false findings; volume score "
            f"{verdict['volume_score']:.2f}, p = {verdict['p_value']:.3f} (n = {verdict['calibration_n']})"
        )
    lines.append(f"  {'method':<22}{'AP':>6}{'Dice':>7}{'found':>8}{'false per normal':>18}")
    lines += [f"  {name:<22}{_row(entry)}" for name, entry in outcome.metrics["methods"].items()]
    lines += [f"  {sentence}" for sentence in against_plain_intensity(outcome)]
    return [*lines, *(f"  note: {note}" for note in outcome.notes), ""]


def against_plain_intensity(outcome: Outcome) -> list[str]:
    """One sentence for each model: whether it beats plain intensity on these cases, with the figures."""
    figures = {name: entry["voxel"]["average_precision"]["value"] for name, entry in outcome.metrics["methods"].items()}
    plain = figures[PLAIN]
    sentences = []
    for name in outcome.bundles:
        verdict = "beats" if figures[name] > plain else "does not beat"
        sentences.append(f"{name} {verdict} plain intensity here: AP {figures[name]:.3f} against {plain:.3f}.")
    if "autoencoder" in outcome.bundles:
        sentences.append(
            "(This autoencoder is small and trained for seconds; `train autoencoder_brain` takes its time.)"
        )
    return sentences


def _row(entry: Mapping[str, Any]) -> str:
    voxel, lesion = entry["voxel"], entry["lesion"]
    found = f"{lesion['found']}/{lesion['lesions']}"
    return (
        f"{voxel['average_precision']['value']:>6.2f}{voxel['dice']['value']:>7.2f}{found:>8}"
        f"{lesion['false_findings_per_normal']['value']:>18.1f}"
    )
