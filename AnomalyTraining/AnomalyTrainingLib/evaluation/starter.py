"""The starter models that ship with the Slicer module: made, measured and described by one function.

They are fitted to simulated brains (the ICBM152 anatomy), so that the module does something the minute it is installed.
What is simulated proves nothing about patients, and the brains that measure them are of that one anatomy too: the
models are marked experimental, and say both.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from AnomalyDetectionLib.imaging.write import atomically
from AnomalyDetectionLib.models.bundle import load_bundle, write_bundle
from AnomalyDetectionLib.models.catalogue import CATALOGUE, catalogue_json, described
from AnomalyDetectionLib.scoring.model import Model

from ..cohorts.manifest import Cohort, load_case_mask, load_case_volume, read_manifest
from ..synthesis.cohort import PhantomSettings, make_phantom_cohort
from ..synthesis.lesions import LesionRequest
from ..training.config import read_config
from ..training.provenance import OF_THE_MACHINE
from ..training.run import export, train
from .candidates import Candidate, judge_case
from .records import VoxelRecord
from .voxels import average_precision

RECIPE = "zscore_brain"
FITTING_SEED, HELD_OUT_SEED, SAMPLE_SEED = 4101, 4102, 4103
"""Of the phantoms; no test uses them.  The held-out brains differ from those the model was fitted to in all that is
drawn at random, and not in the anatomy under it."""

DATA = "simulated brains of the one anatomy (ICBM152) it was fitted to; on other people expect far less"
"""Stands with the figures wherever they are shown: alone they would promise too much."""

LESIONS = (
    *[LesionRequest("tumour")] * 8,
    *[LesionRequest("plaques")] * 8,
    *[LesionRequest("infarct")] * 4,
    *[LesionRequest("haemorrhage")] * 4,
)
RELEASED = "2026-11-24T00:00:00+00:00"
"""Date of the models, fixed so that making them again makes the same files."""

SPACING = (2.0, 2.0, 2.0)
SAMPLE_SPACING = (3.0, 3.0, 3.0)
SAMPLE = "brain_flair_3mm"
"""A held-out brain with a tumour: small enough for the module to carry and for its self-test to score in seconds."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Starter:
    """One starter model.

    Attributes
    ----------
    contrast
        A name in `synthesis.contrast.CONTRASTS`.
    training, calibration, normals
        Numbers of normal brains to fit to, to calibrate on, and held out.
    lesions
        What the other held-out brains have, one each.
    spacing
        mm, of the brains and of the model's template.
    """

    contrast: str
    title: str
    description: str
    training: int = 40
    calibration: int = 40
    normals: int = 24
    lesions: Sequence[LesionRequest] = LESIONS
    spacing: tuple[float, float, float] = SPACING

    @property
    def name(self) -> str:
        """The model's id, and its folder's name."""
        return f"starter-brain-{self.contrast}"


STARTERS = (
    # One for T1 was tried and left out: in 24 held-out brains with lesions it found all tumours and haemorrhages, but
    # 2 of 24 plaques and no infarct (AUROC 0.86): they are grey there, and grey is next to everything.
    Starter(
        "flair",
        "Brain FLAIR (starter)",
        "Skull-stripped FLAIR images of the brain. Finds what is brighter or darker than normal brains at its place. "
        "It knows one simulated anatomy only: several false findings on anyone else are to be expected. "
        "To try the software with, not to judge patients by.",
    ),
)


def make_starters(
    models: Path,
    sample: Path,
    work: Path,
    starters: Sequence[Starter] = STARTERS,
    workers: int = 1,
    progress: Progress = lambda stage, fraction: None,
) -> list[Model]:
    """Make all starter models with their catalogue, and the sample image.

    Parameters
    ----------
    models
        The folder of the bundles and of `catalogue.json`; bundles of the same names are replaced.
    sample
        The folder of the sample image and its mask.
    work
        A folder for cohorts and runs; what an interrupted run left there is used again.
    """
    made = []
    for starter in starters:
        model = fitted(starter, work / starter.contrast, workers, progress)
        made.append(measured(starter, model, work, workers, progress))
    shipped = ship(made, models)
    make_sample(sample, work)
    return shipped


def ship(made: Sequence[Model], models: Path) -> list[Model]:
    """Write the bundles, in place of those of the same names, and the catalogue that lists them and no others."""
    shipped = []
    for model in made:
        folder = models / model.identity.id
        shutil.rmtree(folder, ignore_errors=True)
        shipped.append(write_bundle(model, folder))
    text = json.dumps(catalogue_json([described(models / model.identity.id) for model in shipped]), indent=2) + "\n"
    atomically(models / CATALOGUE, lambda path: _write(path, text))
    return shipped


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def fitted(starter: Starter, work: Path, workers: int, progress: Progress) -> Model:
    """Cohort, training and export, as the command line does them."""
    make_phantom_cohort(
        work / "fitting" / "cohort.csv",
        subjects=starter.training + starter.calibration,
        settings=PhantomSettings(starter.contrast, starter.spacing, FITTING_SEED),
        split=lambda cases: [
            replace(case, split="train" if index < starter.training else "calibrate")
            for index, case in enumerate(cases)
        ],
        workers=workers,
        progress=lambda done, total: progress(f"{starter.contrast}: making phantoms", done / total),
    )
    config = read_config(RECIPE)
    grid = config.input.model_copy(update={"spacing": starter.spacing})
    config = config.model_copy(update={"name": starter.name, "input": grid})
    cohort = read_manifest(work / "fitting" / "cohort.csv")
    train(
        config,
        cohort,
        work / "run",
        seed=FITTING_SEED,
        resume=True,
        device="cpu",
        progress=lambda stage, part: progress(f"{starter.contrast}: {stage}", part),
    )
    if not (work / "bundle").exists():
        export(work / "run", work / "bundle")
    return load_bundle(work / "bundle")


def measured(starter: Starter, model: Model, work: Path, workers: int, progress: Progress) -> Model:
    """The model with its title and its figures on held-out brains; not yet written."""
    folder = work / starter.contrast / "held-out"
    make_phantom_cohort(
        folder / "cohort.csv",
        subjects=starter.normals,
        settings=PhantomSettings(starter.contrast, starter.spacing, HELD_OUT_SEED),
        lesions=starter.lesions,
        split=lambda cases: [replace(case, split="test") for case in cases],
        workers=workers,
        progress=lambda done, total: progress(f"{starter.contrast}: making held-out phantoms", done / total),
    )
    figures = measure(
        model,
        read_manifest(folder / "cohort.csv"),
        lambda part: progress(f"{starter.contrast}: scoring held-out brains", part),
    )
    return presented(starter, model, figures)


def presented(starter: Starter, model: Model, figures: Mapping[str, float | int | str]) -> Model:
    """The model with what its card and the catalogue say of it; not yet written.

    The machine that made it is left out: a run of one's own keeps it for whoever repeats that run there, but whoever
    gets the model that ships never had that machine.
    """
    run = {name: fact for name, fact in model.info["run"].items() if name not in OF_THE_MACHINE}
    info = {
        **model.info,
        "run": run,
        "title": starter.title,
        "description": starter.description,
        "contrast": starter.contrast.upper(),
        "experimental": True,
        "created": RELEASED,
        "metrics": {**figures, "data": DATA},
    }
    return replace(model, info=info, path=None)


def measure(
    model: Model, cohort: Cohort, progress: Callable[[float], None] = lambda fraction: None
) -> dict[str, float | int | str]:
    """Figures of a model on held-out phantoms, with the numbers of cases behind them."""
    method = Candidate(model.identity.detector, "model", model.identity.id, model)
    records = []
    for done, case in enumerate(cohort, start=1):
        volume = load_case_volume(case)
        truth = load_case_mask(case, volume)
        judged = judge_case([method], case, volume, truth, cluster=case.patient, device="cpu")
        records.append(judged.records[method.name])
        progress(done / len(cohort))
    normal, ill = [r for r in records if r.label == 0], [r for r in records if r.label == 1]
    voxels = [record.voxels for record in ill if record.voxels is not None]
    precision = average_precision(
        VoxelRecord(sum(v.lesion for v in voxels), sum(v.healthy for v in voxels), None, None)  # type: ignore[arg-type]
    )
    labels, scores = [r.label for r in records], [r.volume_score for r in records]
    figures: dict[str, float | int | str] = {
        "normals": len(normal),
        "with_lesions": len(ill),
        "volume_auroc": round(float(roc_auc_score(labels, scores)), 3),
        "called_abnormal_of_with_lesions": sum(bool(record.called) for record in ill),
        "called_abnormal_of_normals": sum(bool(record.called) for record in normal),
        "voxel_average_precision": round(float(precision or 0), 3),
        "mean_dice": round(float(np.mean([v.dice for v in voxels if v.dice is not None])), 3),
        "false_findings_per_normal": round(float(np.mean([r.false_findings or 0 for r in normal])), 2),
    }
    for kind in sorted({record.covariates["lesion"] for record in ill}):
        lesions = [lesion for record in ill if record.covariates["lesion"] == kind for lesion in record.lesions]
        figures[f"found_{kind}"] = f"{sum(lesion.hit for lesion in lesions)} of {len(lesions)}"
    return figures


def make_sample(folder: Path, work: Path) -> None:
    """A held-out FLAIR brain with a tumour and its mask, at 3 mm."""
    cohort = make_phantom_cohort(
        work / "sample" / "cohort.csv",
        subjects=0,
        settings=PhantomSettings("flair", SAMPLE_SPACING, SAMPLE_SEED),
        lesions=[LesionRequest("tumour")],
    )
    (case,) = cohort
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in ((case.image, SAMPLE), (case.mask, f"{SAMPLE}_lesion")):
        if source is not None:
            shutil.copyfile(source, folder / f"{name}.nii.gz")
