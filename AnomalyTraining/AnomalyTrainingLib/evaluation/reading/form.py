"""Makes a form for expert reading: one HTML file without a network, cases blinded and shuffled, and its key."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import atomically
from AnomalyDetectionLib.scoring.explaining import Explanation
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.result import ScoreResult
from AnomalyDetectionLib.scoring.scorer import Scorer

from ...cohorts.manifest import Case, Cohort, load_case_mask, load_case_volume
from ...cohorts.splits import hashed
from ..pages import render
from .key import FORM_NAME, KEY_NAME, Key, KeyCase, KeyFinding, form_id
from .pictures import Pictures, pictures_of

ANSWERS_SCHEMA = "slicer-anomaly/review-answers/1"
"""Of the file that the form hands its reader; see `schemas/review_answers.schema.json`."""

MOST_BYTES = 120 << 20
"""Browsers open a page of this size within seconds, and refuse far larger ones."""


@dataclass(frozen=True)
class FormSettings:
    """How a form is made.

    Attributes
    ----------
    cases
        How many are taken, of each class its share; None takes all.
    slices
        Of a volume.
    with_map
        Whether readers are shown the model's map and asked about its findings.
    """

    split: str = "test"
    cases: int | None = None
    slices: int = 12
    with_map: bool = True
    seed: int = 0
    device: str = "auto"
    title: str = "Reading"


def make_form(
    model: Model,
    cohort: Cohort,
    out: Path,
    settings: FormSettings,
    progress: Callable[[float], None] = lambda share: None,
) -> Key:
    """Score the cases, picture them, and write form.html and key.json.

    Parameters
    ----------
    out
        The folder; exists.

    Raises
    ------
    InputError
        If there is no case, one cannot be read or scored, or the form would be too large.
    OutputError
        If a file cannot be written.
    """
    chosen = chosen_cases(cohort, settings)
    scorer = Scorer(model, settings.device)
    explain = Explanation("grad-cam") if settings.with_map and model.detector.explainable else None
    key_cases, shown, size = [], [], 0
    for number, case in enumerate(chosen, 1):
        volume = load_case_volume(case)
        result = scorer.score(volume, case=case.case, explain=explain)
        pictures = pictures_of(volume, result, settings.slices, with_map=settings.with_map)
        code = f"R{number:03d}"
        key_cases.append(_key_case(code, case, volume, result, pictures))
        shown.append(_for_page(code, result, pictures))
        size += sum(len(s.plain) + len(s.marked or b"") for s in pictures.slices) * 4 // 3
        if size > MOST_BYTES:
            raise InputError(
                f"The form would be larger than {MOST_BYTES >> 20} MB after {number} of {len(chosen)} cases; ask for "
                "fewer with --cases, or for fewer slices with --slices."
            )
        progress(number / len(chosen))
    identity = vars(model.identity)
    facts = {
        "model": identity["sha256"],
        "manifest": hashlib.sha256(cohort.path.read_bytes()).hexdigest(),
        "cases": [[case.code, case.case] for case in key_cases],
        "settings": [settings.split, settings.slices, settings.with_map, settings.seed],
    }
    threshold = model.calibration.threshold.default if any(case.findings for case in key_cases) else None
    key = Key(form_id(facts), settings.seed, settings.with_map, cohort.path.name, identity, threshold, tuple(key_cases))
    page = form_html(key, shown, settings.title)
    key.write(out / KEY_NAME)
    atomically(out / FORM_NAME, lambda path: _write(path, page))
    return key


def chosen_cases(cohort: Cohort, settings: FormSettings) -> list[Case]:
    """The cases of the split in an order that tells nothing, as many of each class as its share asks for.

    Raises
    ------
    InputError
        If there is none.
    """
    cases = sorted(cohort.of(split=settings.split).cases, key=lambda case: hashed(case.case, settings.seed))
    if not cases:
        raise InputError(f"{cohort.path}: no case is in the split {settings.split!r}; give another --split.")
    if settings.cases is None or settings.cases >= len(cases):
        return cases
    ill = [case for case in cases if case.label]
    share = round(settings.cases * len(ill) / len(cases))
    kept = {case.case for case in [*ill[:share], *[c for c in cases if not c.label][: settings.cases - share]]}
    return [case for case in cases if case.case in kept]


def _key_case(code: str, case: Case, volume: Volume, result: ScoreResult, pictures: Pictures) -> KeyCase:
    truth = load_case_mask(case, volume)
    known = np.zeros(volume.shape, dtype=bool) if case.label == 0 else truth
    findings = tuple(
        KeyFinding(finding.label, round(finding.size, 4), finding.size_unit, _touches(result, finding.label, known))
        for finding in result.findings
        if finding.label in pictures.findings
    )
    return KeyCase(code, case.case, case.patient, case.label, result.volume_score, result.abnormal, findings)


def _touches(result: ScoreResult, label: int, truth: NDArray[np.bool_] | None) -> bool | None:
    return None if truth is None else bool(truth[result.labels == label].any())


def _for_page(code: str, result: ScoreResult, pictures: Pictures) -> dict[str, Any]:
    """What the page is told of a case: nothing by which it could be known."""
    sizes = {finding.label: f"{finding.size:.3g} {finding.size_unit}" for finding in result.findings}
    return {
        "code": code,
        "first": pictures.first,
        "caption": pictures.caption,
        "slices": [
            {"plain": _base64(one.plain), "marked": None if one.marked is None else _base64(one.marked)}
            for one in pictures.slices
        ],
        "findings": [
            {"number": number, "slice": place, "size": sizes[number]} for number, place in pictures.findings.items()
        ],
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def form_html(key: Key, shown: Sequence[dict[str, Any]], title: str) -> str:
    """The text of form.html: its one script is allowed by its hash, and nothing is loaded from anywhere."""
    script = (files("AnomalyTrainingLib") / "evaluation" / "templates" / "form.js").read_text(encoding="utf-8")
    facts = {"schema": ANSWERS_SCHEMA, "form": key.form, "withMap": key.with_map, "cases": list(shown)}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return render(
        "form.html.j2",
        title=title,
        key=key,
        version=__version__,
        script=script,
        script_hash=digest,
        data=json.dumps(facts, ensure_ascii=True).replace("<", "\\u003c"),
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
