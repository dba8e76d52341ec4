"""Runs a model, its baselines and a ceiling over the cases of a cohort, case by case, into a folder of records.

DIR/evaluation.json says what the folder belongs to; DIR/records/CASE.npz holds what every method made of a case, and
DIR/artefacts/CASE.json what it made of that case when it was spoilt.  All are written whole or not at all, so a run
that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import InputError, OutputError, sentence_of, stops_writing
from AnomalyDetectionLib.imaging.write import atomically
from AnomalyDetectionLib.models.manifest import ATTACHED
from AnomalyDetectionLib.scoring.model import Model

from ..cohorts.channels import channel_of_model
from ..cohorts.manifest import Case, Cohort, load_case_mask, load_case_volume
from .baselines import SUPERVISED
from .baselines.fit import fit_baselines
from .baselines.store import Baselines, from_files, stored_baselines
from .baselines.tables import Row, out_of_fold
from .battery import battery_candidates, battery_cases, battery_of_case
from .candidates import Candidate, candidates_of, judge_case
from .kept import FOLDER, read_records, write_records
from .overlap import NotHeldOut, Seen
from .records import CaseRecord
from .shift.reference import ImageRow, image_row

SCHEMA = "slicer-anomaly/evaluation/1"
STATE = "evaluation.json"
PATIENT = "patient"
FITTING_SHARE = 0.3
"""Of the time, where baselines are fitted before cases are judged."""

Progress = Callable[[str, float], None]
"""Called with the stage and the share of the whole that is done."""


@dataclass(frozen=True)
class Settings:
    """How an evaluation is run.

    Attributes
    ----------
    split
        Whose cases are judged.
    cluster
        What the bootstrap draws as a whole: "patient" or a covariate of the manifest, such as the anatomy of phantoms.
    artefacts
        "none", "quick" or "full".
    baselines
        "stored": those in the bundle, or fitted to this cohort's normals where it holds none; "refitted": fitted to
        this cohort's normals in any case; "none".
    shift
        Whether images are described, so that the cohort can be compared with the one the model was made with.
    """

    split: str = "test"
    cluster: str = PATIENT
    device: str = "auto"
    artefacts: str = "none"
    baselines: str = "stored"
    seed: int = 0
    shift: bool = False


@dataclass
class Judged:
    """What became of the cases.

    Attributes
    ----------
    records
        Method name to its records, in the manifest's order.
    missing
        Baseline's name to the reason why there is none.
    failed
        Case name to the sentence why it could not be judged.
    rows
        Of the artefact battery, one a case, artefact, severity and method.
    images
        Case name to what describes its image (`shift.reference.image_row`), where `Settings.shift` asks for it.
    """

    candidates: list[Candidate]
    records: dict[str, list[CaseRecord]]
    missing: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: dict[str, ImageRow] = field(default_factory=dict)


def judge_cohort(
    model: Model,
    cohort: Cohort,
    out: Path,
    settings: Settings,
    *,
    ceiling: Model | None = None,
    resume: bool = False,
    progress: Progress = lambda stage, fraction: None,
    event: Callable[..., None] = lambda name, **fields: None,
) -> Judged:
    """Judge all cases of a split by all methods.

    Parameters
    ----------
    out
        The folder; exists, and this run is the only one at work in it.
    event
        Called with "case", `case`, `status` ("done", "skipped" or "failed") and, where failed, `message`.

    Raises
    ------
    InputError
        If there is no case to judge or none could be judged, the cases are not held out, or the folder holds another
        evaluation.
    """
    for judge in (model, *((ceiling,) if ceiling else ())):
        cohort = channel_of_model(cohort, judge.detector.spec.channels)
    cases = cases_of(cohort, settings)
    seen = Seen(model, settings.split)
    seen.check_patients(cases)
    begin(out / STATE, "evaluation", _identity(model, ceiling, cohort, settings), resume)
    stored = _ready(model, settings)
    begun = FITTING_SHARE if stored is None else 0.0
    baselines = stored or _fitted_here(model, cohort, out, settings, lambda s, part: progress(s, begun * part))
    candidates = candidates_of(model, baselines, ceiling)
    judged = Judged(candidates, {c.name: [] for c in candidates}, dict(baselines.missing))
    judging = _Judging(settings, out, seen, judged)
    battery = battery_cases(cases, settings.artefacts)

    def watch(stage: str, done: float) -> None:
        progress(stage, begun + (1 - begun) * done / (len(cases) + len(battery)))

    for done, case in enumerate(cases):
        watch(f"judging {case.case}", done)
        event("case", case=case.case, **judging.judge(case))
    if len(judged.failed) == len(cases):
        raise InputError(next(iter(judged.failed.values())))
    if settings.split == "validate":
        _judge_out_of_fold(judged, judging.rows)
    for done, case in enumerate(case for case in battery if case.case not in judged.failed):
        judging.spoil(case, lambda part, done=done: watch("artefacts", len(cases) + done + part))  # type: ignore[misc]
    judged.notes += _notes(judged, seen, judging)
    return judged


def cases_of(cohort: Cohort, settings: Settings) -> Sequence[Case]:
    """The cases of the split, each with the column that clusters it.

    Raises
    ------
    InputError
        If there is none, or one has no value in that column.
    """
    cases = cohort.of(split=settings.split).cases
    if not cases:
        splits = sorted({case.split or "(none)" for case in cohort})
        raise InputError(
            f"{cohort.path}: no case is in the split {settings.split!r} (there are {', '.join(splits)}); "
            "give another --split, or fill in the manifest's split column."
        )
    for case in cases:
        if settings.cluster != PATIENT and settings.cluster not in case.covariates:
            known = sorted({name for other in cohort for name in other.covariates})
            raise InputError(
                f"{cohort.path}: the case {case.case} has no value in the column {settings.cluster!r} that clusters "
                f"the cases; the columns are {', '.join([PATIENT, *known])}."
            )
    return cases


def cluster_of(case: Case, column: str) -> str:
    """What the case is drawn with."""
    return case.patient if column == PATIENT else case.covariates[column]


class _Judging:
    """Judges one case after the other, or takes what is there already."""

    def __init__(self, settings: Settings, out: Path, seen: Seen, judged: Judged) -> None:
        self.settings, self.out, self.seen, self.judged = settings, out, seen, judged
        assert judged.candidates[0].model is not None
        self.spec = judged.candidates[0].model.detector.spec
        self.rows: dict[str, dict[str, Row]] = {}  # case to what the supervised baselines go by
        self.failures: dict[str, dict[str, str]] = {}  # baseline to case to sentence

    def judge(self, case: Case) -> dict[str, Any]:
        path = self.out / FOLDER / f"{case.case}.npz"
        cluster = cluster_of(case, self.settings.cluster)
        if path.exists():
            records, extra = read_records(path)
            self._take(case, {name: replace(record, cluster=cluster) for name, record in records.items()}, extra)
            return {"status": "skipped"}
        try:
            volume = load_case_volume(case)
            self.seen.check_image(case, volume)
            truth = load_case_mask(case, volume)
            made = judge_case(self.judged.candidates, case, volume, truth, cluster=cluster, device=self.settings.device)
        except (OutputError, NotHeldOut):
            raise
        except Exception as error:
            sentence = None if stops_writing(error) else sentence_of(error)
            if sentence is None:
                raise
            self.judged.failed[case.case] = sentence
            return {"status": "failed", "message": sentence}
        described = {"image": image_row(volume, self.spec)} if self.settings.shift else {}
        extra = {"rows": made.rows, "failures": made.failures, **described}
        write_records(path, made.records, extra)
        self._take(case, made.records, extra)
        record = made.records[self.judged.candidates[0].name]
        figures = {"volume_score": record.volume_score, "p_value": record.p_value, "findings": record.findings}
        return {"status": "done", **figures}

    def _take(self, case: Case, records: Mapping[str, CaseRecord], extra: Mapping[str, Any]) -> None:
        for name, record in records.items():
            if name in self.judged.records:
                self.judged.records[name].append(record)
        if self.settings.shift:  # an earlier run may not have been asked to describe the image
            described = extra.get("image") or image_row(load_case_volume(case), self.spec)
            self.judged.images[case.case] = described
        self.rows[case.case] = extra["rows"]
        for name, sentence in extra["failures"].items():
            self.failures.setdefault(name, {})[case.case] = sentence

    def spoil(self, case: Case, progress: Callable[[float], None]) -> None:
        settings = self.settings
        path = self.out / "artefacts" / f"{case.case}-{settings.artefacts}-{settings.seed}.json"
        if path.exists():
            self.judged.rows += json.loads(path.read_text(encoding="utf-8"))
            return
        methods = battery_candidates(self.judged.candidates)
        rows = battery_of_case(
            methods,
            load_case_volume(case),
            settings.artefacts,
            device=settings.device,
            seed=settings.seed,
            progress=progress,
        )
        write_json(path, rows)
        self.judged.rows += rows


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file whole or not at all."""
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    atomically(path, write)


def _identity(model: Model, ceiling: Model | None, cohort: Cohort, settings: Settings) -> dict[str, Any]:
    """What must agree for an evaluation to be continued."""
    return {
        "schema": SCHEMA,
        "software": __version__,
        "model": model.identity.sha256,
        "ceiling": ceiling.identity.sha256 if ceiling else None,
        "cohort": hashlib.sha256(cohort.path.read_bytes()).hexdigest(),
        "split": settings.split,
        "baselines": settings.baselines,
    }


def begin(path: Path, what: str, identity: Mapping[str, Any], resume: bool) -> None:
    """Note in a file of an empty folder what the folder belongs to, or see that it belongs to the same.

    Parameters and errors as of `check_place`.
    """
    check_place(path, what, identity, resume)
    if not path.exists():
        write_json(path, dict(identity))


def check_folder(
    model: Model, ceiling: Model | None, cohort: Cohort, out: Path, settings: Settings, *, resume: bool
) -> None:
    """Refuse a folder that `judge_cohort` would refuse, before anything that takes time.

    Raises
    ------
    InputError, OutputError
        As `judge_cohort`.
    """
    check_place(out / STATE, "evaluation", _identity(model, ceiling, cohort, settings), resume)


def check_place(path: Path, what: str, identity: Mapping[str, Any], resume: bool) -> None:
    """Refuse a folder that belongs to something else.

    Parameters
    ----------
    path
        File of the folder that says what it belongs to, if there is one.
    what
        "evaluation" or "cross-validation".

    Raises
    ------
    InputError
        If the folder holds another one.
    OutputError
        If it holds one (without `resume`), or something else.
    """
    out = path.parent
    if not path.exists():
        others = [entry.name for entry in out.iterdir() if not entry.name.startswith(".")] if out.is_dir() else []
        if others:
            raise OutputError(f"{out}: the folder holds something else ({others[0]}); choose an empty one.")
        return
    if not resume:
        raise OutputError(
            f"{out}: the folder holds an earlier {what}; go on with it with --resume, or choose another folder."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key, value in identity.items() if found.get(key) != value]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); choose another folder.") from error
    if differing:
        raise InputError(f"{out}: the {what} in this folder had another {differing[0]}; choose another folder.")


def _ready(model: Model, settings: Settings) -> Baselines | None:
    """The baselines if nothing is to be fitted for them."""
    if settings.baselines == "none":
        return Baselines()
    return stored_baselines(model) if settings.baselines == "stored" else None


def _fitted_here(model: Model, cohort: Cohort, out: Path, settings: Settings, progress: Progress) -> Baselines:
    """Baselines fitted to this cohort's normals and kept in `out`."""
    folder = out / ATTACHED
    if (folder / "baselines.json").exists():
        return from_files({ATTACHED + path.name: path.read_bytes() for path in folder.iterdir()}, model)
    fitted = fit_baselines(model, cohort, device=settings.device, progress=progress)
    # The table last: where it is, all is there.
    for name, content in sorted(fitted.to_files(model).items(), key=lambda item: item[0].endswith(".json")):
        atomically(out / name, lambda temporary, content=content: _write_bytes(temporary, content))  # type: ignore[misc]
    return fitted


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _judge_out_of_fold(judged: Judged, rows: Mapping[str, Mapping[str, Row]]) -> None:
    """On the cases that the supervised baselines are fitted to, they judge each without having seen its patient."""
    for name in SUPERVISED:
        records = judged.records.get(name)
        if not records:
            continue
        scores = out_of_fold(
            [rows[r.case][name] for r in records], [r.label for r in records], [r.patient for r in records]
        )
        if scores is None:
            judged.missing[name] = "too few patients of each class to judge the split it is fitted on out of fold"
            judged.records[name] = []
        else:
            judged.records[name] = [
                replace(record, volume_score=score, called=None, p_value=None)
                for record, score in zip(records, scores, strict=True)
            ]


def _notes(judged: Judged, seen: Seen, judging: _Judging) -> list[str]:
    notes = []
    if not seen.known:
        notes.append(
            "The model's bundle does not say whom it was trained on: whether these cases are held out is unknown."
        )
    if not any(candidate.kind == "baseline" for candidate in judged.candidates):
        notes.append(
            "There is no baseline beside the model: this evaluation does not tell whether it beats plain intensity."
        )
    notes += [f"The baseline {name} is missing: {reason}." for name, reason in judged.missing.items()]
    for name, failures in judging.failures.items():
        notes.append(f"{name} could not judge {len(failures)} cases, such as {next(iter(failures.values()))}")
    if judged.failed:
        notes.append(f"{len(judged.failed)} cases could not be judged: {', '.join(judged.failed)}.")
    return notes
