"""Score images with a model.

INPUT is an image file (NIfTI, NRRD, MHA, DICOM, PNG, JPEG), a folder that holds a DICOM series, or a cohort manifest
(.csv with the columns case and image, image paths relative to it).  Each case gets a folder of its own in DIR:
score.nii.gz (rarity, in the geometry of the input), labels.nii.gz (findings), findings.csv, report.json, overlay.png;
with --explain attribution.nii.gz as well (what moved a classifier's score: attribution, not segmentation).
DIR/scores.csv sums all cases up; DIR/run.json says what was scored with which model, so that --resume can go on.

A case that cannot be scored does not stop the others; it is named at the end, and the exit code is then 2.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import Cancelled, InputError, OutputError, one_line, sentence_of, stops_writing

from .covariates import with_covariates
from .explaining import add_explain_options, explanation_of
from .failures import fault_sentence
from .folder import LEAST_FREE_BYTES, RUN_NAME, RUN_SCHEMA, SUMMARY_NAME, OutputFolder
from .inputs import Request, missing_sentence, name_cases, read_request, requests_of
from .progress import Progress, add_progress_option

if TYPE_CHECKING:  # importing these takes a second (torch): only once there is something to score
    from AnomalyDetectionLib.scoring.explaining import Explanation
    from AnomalyDetectionLib.scoring.model import Model
    from AnomalyDetectionLib.scoring.scorer import Scorer

BYTES_PER_VOXEL = 5
"""Room to ask for: an incompressible float32 map, and labels, which compress to well below a byte a voxel."""
BYTES_OF_ATTRIBUTION = 4

COLUMNS = (
    "case",
    "status",
    "volume_score",
    "abnormal",
    "p_value",
    "calibration_n",
    "findings",
    "threshold",
    "quality",
    "message",
    "probability",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `slicer-anomaly score`."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the model's folder")
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="image, folder of a DICOM series, or manifest (.csv)"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument(
        "--threshold",
        metavar="RARITY",
        type=rarity,
        help="rarity above which voxels are findings (default: the model's)",
    )
    parser.add_argument(
        "--series", metavar="UID|N", help="which series of a folder with several: its UID, or its number"
    )
    parser.add_argument(
        "--modality", type=modality, help="modality of the images, such as MR, where the file does not say"
    )
    parser.add_argument(
        "--covariates",
        metavar="FILE",
        type=Path,
        help="CSV of what a model with clinical columns is told of each case: a column case, and age, sex, view, ...",
    )
    add_explain_options(parser)
    parser.add_argument("--resume", action="store_true", help="go on with a run: cases that are complete are kept")
    add_progress_option(parser)


def rarity(text: str) -> float:
    """A threshold from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a rarity is a number above 0, such as 3, not {text!r}")
    return value


def modality(text: str) -> str:
    """A DICOM modality code from the command line."""
    code = text.strip().upper()
    if not (2 <= len(code) <= 16 and code.isascii() and code.isalnum()):
        raise argparse.ArgumentTypeError(f"a modality is a DICOM code such as MR or CT, not {text!r}")
    return code


def run(args: argparse.Namespace) -> int:
    """Score all inputs; returns the exit code."""
    explanation = explanation_of(args)
    requests = requests_of(args.inputs, args.series)
    if args.covariates is not None:
        requests = with_covariates(requests, args.covariates)
    missing = [missing_sentence(request) for request in requests]
    if missing and all(missing):
        raise InputError(missing[0])
    with OutputFolder(args.out) as folder:
        earlier = folder.read_run()
        if earlier and not args.resume:
            raise OutputError(
                f"{args.out}: it holds the results of an earlier run; add --resume to go on with it, "
                "or choose another folder."
            )
        model = _load(args, explanation)
        job = Job.plan(args, folder, model, requests, earlier, explanation)
        with Progress(args.progress, total=len(job.todo)) as progress:
            return job.execute(progress)


def _load(args: argparse.Namespace, explanation: Explanation | None) -> Model:
    from AnomalyDetectionLib.models.bundle import load_bundle
    from AnomalyDetectionLib.models.devices import choose_device
    from AnomalyDetectionLib.scoring.attribution import check_explainable

    model = load_bundle(args.bundle)
    choose_device(args.device, 0)  # a device that is not there is one sentence, not one a case
    if explanation is not None:  # the same of a model that cannot be explained
        check_explainable(model.detector, explanation, model.identity.detector)
    return model


@dataclass
class Job:
    """The cases of one run and what became of them."""

    args: argparse.Namespace
    folder: OutputFolder
    model: Model
    cases: dict[str, Request]
    todo: list[str]
    stale: list[str]
    record: dict[str, Any]
    explanation: Explanation | None = None
    failed: dict[str, str] = field(default_factory=dict)
    faults: int = 0
    done: int = 0
    _recorded: bool = False
    _said: set[str] = field(default_factory=set)

    @classmethod
    def plan(
        cls,
        args: argparse.Namespace,
        folder: OutputFolder,
        model: Model,
        requests: list[Request],
        earlier: dict[str, Any] | None,
        explanation: Explanation | None,
    ) -> Job:
        """Name the cases and find out which are still to be scored.

        Raises
        ------
        InputError
            If the folder holds results of another model, threshold or explanation, or something else under a case's
            name.
        """
        threshold = model.calibration.threshold.default if args.threshold is None else args.threshold
        explain = None if explanation is None else explanation.to_json()
        if earlier:
            _check_same(args.out, earlier, model, threshold, explain)
        known: dict[str, Any] = earlier["cases"] if earlier else {}
        names = name_cases(requests, {entry["input"]: name for name, entry in known.items()})
        cases = dict(zip(names, requests, strict=True))
        entries = {name: {"input": r.key, "fingerprint": r.fingerprint()} for name, r in cases.items()}
        for name in cases:
            if name not in known and (folder.path / name).exists():
                raise OutputError(
                    f"{args.out}: there is already something named {name!r}, and no record of its making; "
                    "choose another folder."
                )
        changed = [n for n in cases if n in known and known[n].get("fingerprint") != entries[n]["fingerprint"]]
        todo = [n for n in cases if n in changed or not _complete(folder.path / n)]
        record = {
            "schema": RUN_SCHEMA,
            "software": __version__,
            "model": {
                "id": model.identity.id,
                "version": model.identity.version,
                "sha256": model.identity.sha256,
            },
            "threshold": threshold,
            "explain": explain,
            "cases": known | entries,
        }
        if earlier:
            folder.clear_leftovers()
        return cls(args, folder, model, cases, todo, [n for n in todo if n in known], record, explanation)

    def execute(self, progress: Progress) -> int:
        """Score what is to be done, sum up, and return the exit code."""
        for name in self.cases:
            if name not in self.todo:
                progress.event("case", case=name, status="skipped")
        try:
            self._score_all(progress)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._summarise()
            if stops_writing(error) or isinstance(error, OutputError):
                raise self._stopped(error) from error
            raise
        self._summarise()
        return self._conclude(progress)

    def _score_all(self, progress: Progress) -> None:
        from AnomalyDetectionLib.scoring.scorer import Scorer

        scorer = Scorer(self.model, self.args.device)
        for index, name in enumerate(self.todo):
            progress.start_case(name, index)
            try:
                self._score_one(scorer, name, progress)
            except (Cancelled, OutputError):
                raise
            except Exception as error:
                if stops_writing(error) or len(self.cases) == 1:
                    raise
                self._note_failure(name, error, progress)

    def _score_one(self, scorer: Scorer, name: str, progress: Progress) -> None:
        from AnomalyDetectionLib.interop.reports import write_case

        progress("reading", 0.0)
        volume = read_request(self.cases[name], self.args.modality)
        each = BYTES_PER_VOXEL + (BYTES_OF_ATTRIBUTION if self.explanation is not None else 0)
        self.folder.check_space(LEAST_FREE_BYTES + each * volume.array.size)
        result = scorer.score(
            volume,
            threshold=self.args.threshold,
            case=name,
            explain=self.explanation,
            progress=lambda stage, fraction: progress(stage, 0.15 + 0.75 * fraction),
        )
        progress("writing", 0.9)
        self._record()
        write_case(volume, result, self.folder.path / name)
        self.done += 1
        progress("done", 1.0)
        for note in result.notes:
            if note not in self._said:  # what is true of every case is said once; each report has it
                self._said.add(note)
                progress.warn(note, name)
        for reason in result.quality.reasons:
            progress.warn(f"image quality: {reason}", name)
        count = len(result.findings)
        found = f"{count} finding{'' if count == 1 else 's'} above rarity {result.threshold:g}"
        chance = "" if result.probability is None else f" (probability {result.probability:.2f})"
        progress.say(
            f"{name}: {found if result.mapped else 'whole image judged, no map'}; "
            f"volume score {result.volume_score:.2f}{chance}: {'abnormal' if result.abnormal else 'normal'}, "
            f"p = {result.p_value:.3f} (n = {result.calibration_n}); "
            f"image quality {result.quality.verdict}"
        )
        progress.event(
            "case",
            case=name,
            status="done",
            folder=str(self.folder.path / name),
            volume_score=result.volume_score,
            abnormal=result.abnormal,
            p_value=result.p_value,
            findings=count,
            probability=result.probability,
        )

    def _record(self) -> None:
        """Write `run.json` before the first result of this run, after taking away results of inputs that changed."""
        if not self._recorded:
            for name in self.stale:
                if (self.folder.path / name).exists():
                    shutil.rmtree(self.folder.path / name)
            self.folder.write_text(RUN_NAME, json.dumps(self.record, indent=1) + "\n")
            self._recorded = True

    def _note_failure(self, name: str, error: Exception, progress: Progress) -> None:
        sentence = sentence_of(error)
        if sentence is None:
            self.faults += 1
            sentence = fault_sentence(error)
        self.failed[name] = sentence
        progress.event("case", case=name, status="failed", message=sentence)

    def _stopped(self, error: BaseException) -> OutputError:
        reason = sentence_of(error) or one_line(str(error))
        if not self.done:
            return OutputError(reason)
        return OutputError(f"{reason} {self.done} of {len(self.todo)} cases were done before; go on with --resume.")

    def _summarise(self) -> None:
        rows = [row for name in self.record["cases"] if (row := _summary_row(self.folder.path / name)) is not None]
        if not rows:
            if self._recorded:
                (self.folder.path / RUN_NAME).unlink(missing_ok=True)  # nothing came of this run
            return
        rows += [{"case": name, "status": "failed", "message": message} for name, message in self.failed.items()]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.folder.write_text(SUMMARY_NAME, text.getvalue())

    def _conclude(self, progress: Progress) -> int:
        skipped = len(self.cases) - len(self.todo)
        counts = Counter({"scored": self.done, "complete before": skipped, "failed": len(self.failed)})
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        results = self.folder.path / SUMMARY_NAME
        progress.say(f"{said}; see {results}" if results.exists() else said)
        if self.failed:
            progress.problem(f"{len(self.failed)} of {len(self.cases)} cases could not be scored:")
            for name, sentence in self.failed.items():
                progress.problem(f"  {name}: {sentence}")
        progress.result(
            {"out": str(self.folder.path), "done": self.done, "skipped": skipped, "failed": list(self.failed)}
        )
        return 1 if self.faults else 2 if self.failed else 0


def _complete(path: Path) -> bool:
    from AnomalyDetectionLib.interop.reports import is_complete

    return is_complete(path)


def _check_same(
    out: Path, earlier: dict[str, Any], model: Model, threshold: float, explain: dict[str, Any] | None
) -> None:
    before = earlier["model"]
    if before.get("sha256") != model.identity.sha256:
        raise InputError(
            f"{out}: this folder was scored with another model ({before.get('id')} {before.get('version')}); "
            "choose another folder."
        )
    if not math.isclose(float(earlier.get("threshold") or 0), threshold, rel_tol=1e-9):
        raise InputError(
            f"{out}: this folder was scored with the threshold {earlier.get('threshold')}, not {threshold:g}; "
            "give the same --threshold or choose another folder."
        )
    if earlier.get("explain") != explain:
        before_by = (earlier.get("explain") or {}).get("method") or "none"
        raise InputError(
            f"{out}: this folder was scored with another explanation ({before_by}); give the same --explain and "
            "--explain-layer or choose another folder."
        )


def _summary_row(path: Path) -> dict[str, Any] | None:
    """The line of a complete case in `scores.csv`, from its report."""
    if not _complete(path):
        return None
    report = json.loads((path / "report.json").read_text(encoding="utf-8"))
    return {
        "case": path.name,
        "status": "done",
        "volume_score": report["volume_score"],
        "abnormal": int(report["decision"]["abnormal"]) if report.get("decision") else "",
        "p_value": report["p_value"],
        "calibration_n": report["calibration_n"],
        "findings": len(report["findings"]),
        "threshold": report["threshold"],
        "quality": report["quality"]["verdict"],
        "probability": "" if report.get("probability") is None else report["probability"],
    }
