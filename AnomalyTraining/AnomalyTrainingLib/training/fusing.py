"""Fitting of a fusion: its members are read from their bundles, and must not have learnt from what it is calibrated on.

A member's rarity of normals that it was fitted to, or whose loss chose its epoch, is lower than that of new normals; a
fusion that is calibrated on them would promise too few false findings.  Normals that only calibrated a member are
allowed, and counted in the model card: its curve has followed them where it might have followed others, which moves the
fused score of any one of n normals by the order of 1 / n.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.detectors.fusion import Fusion
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.models.manifest import read_manifest
from AnomalyDetectionLib.models.seen import LEARNT, is_crossed, joined_used, patient_hash, pixel_hash, used_of
from AnomalyDetectionLib.scoring.composite import Composite, Member
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.registry import BUILT_IN
from AnomalyTrainingLib.cohorts.manifest import Case, load_case_volume

from .config import TrainConfig
from .statistics import Fitted, ProgressCallback, rebuilt


def fuse(config: TrainConfig, calibrate: Sequence[Case], decide: Sequence[Case], progress: ProgressCallback) -> Fitted:
    """The fusion of the bundles that a configuration names.

    Parameters
    ----------
    calibrate
        The normals that it is going to be calibrated on.
    decide
        The cases that its decision is going to be chosen on; may be empty.

    Raises
    ------
    InputError
        If a bundle cannot be read or fused, two are the same, or one has learnt from a calibration normal or was
        fitted to a case that decides.
    """
    options = dict(config.options)
    folders = [Path(folder) for folder in options.pop("members")]
    models = []
    for done, folder in enumerate(folders):
        progress("reading the members", done / len(folders))
        models.append(_member(folder))
    for number, model in enumerate(models):
        if model.identity.sha256 in {other.identity.sha256 for other in models[:number]}:
            raise InputError(f"{folders[number]}: this model is a member already; name each once.")
    unknown = [_name(model) for model in models if "train" not in used_of(model.info)]
    patients, images = _hashes_of(calibrate, "looking for calibration normals that members know", progress)
    deciding = _hashes_of(decide, "looking for validation cases that members know", progress)
    for model in models:
        _check_held_out(
            *(model, LEARNT, patients, images, "calibration normals"),
            "calibrate the fusion on normals that no member has learnt from",
        )
        # A member may have chosen its epoch on them, as any model whose decision is chosen by ROC has.
        _check_held_out(
            *(model, LEARNT[:1], *deciding, "patients whose cases decide (split 'validate')"),
            "choose the decision on cases that no member was fitted to, or by `threshold.method: normals`",
        )
    fusion = Fusion.of([_as_member(model) for model in models], **options)
    facts = _facts(models, fusion.rule, patients, images)
    if unknown:
        facts["warning"] = (
            f"{', '.join(unknown)} does not say whom it was trained on: whether the calibration normals are new to the "
            "fusion is unknown."
        )
    return Fitted(
        rebuilt(config, fusion), models[0].template, facts, joined_used(*(used_of(model.info) for model in models))
    )


def without_folders(config: TrainConfig, fusion: Composite) -> TrainConfig:
    """The configuration as a bundle may show it: members by their hash, not by where they lay."""
    members = [member.identity.sha256 for member in fusion.members]
    return config.model_copy(update={"options": {**config.options, "members": members}})


def _member(folder: Path) -> Model:
    detector = read_manifest(folder)["detector"]
    if detector not in BUILT_IN:  # before its code is imported
        raise InputError(
            f"{folder}: the detector {detector!r} does not come with this software; only those that do can be fused."
        )
    model = load_bundle(folder)
    if isinstance(model.detector, Composite):
        raise InputError(f"{folder}: this is a fusion itself; name its members instead.")
    if not model.detector.makes_map:
        raise InputError(f"{folder}: {detector} judges whole images; only models that make a map can be fused.")
    return model


def _as_member(model: Model) -> Member:
    return Member(model.identity, model.detector, model.template, model.calibration.calibrator)


def _name(model: Model) -> str:
    return f"{model.identity.id} {model.identity.version}"


def _hashes_of(cases: Sequence[Case], stage: str, progress: ProgressCallback) -> tuple[set[str], set[str]]:
    """Of patients and images of cases."""
    images: set[str] = set()
    for done, case in enumerate(cases, 1):
        images.add(pixel_hash(load_case_volume(case)))
        progress(stage, done / len(cases))
    return {patient_hash(case.patient) for case in cases}, images


def _check_held_out(
    model: Model, roles: Sequence[str], patients: set[str], images: set[str], what: str, advice: str
) -> None:
    """Refuse cases that the model has seen in one of these roles."""
    crossed = is_crossed(model.info)
    for role in roles:
        known_patients, known_images = _hashes(model, role)
        shared = max(len(patients & known_patients), len(images & known_images))
        if not shared:
            continue
        how = (
            "was fitted to (its calibration was cross-conformal; train it with calibration.method=split)"
            if crossed and role == "train"
            else f"was made with (its split {role!r})"
        )
        raise InputError(f"{shared} of {len(patients)} {what} are ones that {_name(model)} {how}; {advice}.")


def _hashes(model: Model, role: str) -> tuple[set[str], set[str]]:
    """Of patients and images of a role."""
    used = used_of(model.info).get(role, {})
    return set(used.get("patients_sha256", ())), set(used.get("images_sha256", ()))


def _facts(models: Sequence[Model], rule: str, patients: set[str], images: set[str]) -> dict[str, Any]:
    """What the bundle says of the members, and of what their training and the fusion's calibration share."""
    fitted_to = set().union(*(_hashes(model, "train")[0] for model in models))
    counts = [int(model.info.get("training", {}).get("normals", 0)) for model in models]
    facts: dict[str, Any] = {"normals": max(counts), "patients": len(fitted_to), "rule": f"{rule} of rarity"}
    for number, model in enumerate(models, 1):
        calibration = model.info.get("calibration", {})
        known_patients, known_images = _hashes(model, "calibrate")
        shared = max(len(patients & known_patients), len(images & known_images))
        facts[f"member {number}"] = (
            f"{_name(model)} ({model.identity.detector}, SHA-256 {model.identity.sha256[:16]}…), fitted to "
            f"{counts[number - 1]} normals, calibrated on {model.calibration.n} "
            f"({calibration.get('method', 'method unknown')}); {shared} of its calibration normals calibrate the "
            "fusion again"
        )
    return facts
