"""How many normals a detector needs to learn from before its maps say anything of new people."""

from __future__ import annotations

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.composite import Composite
from AnomalyDetectionLib.scoring.registry import detector_class
from AnomalyTrainingLib.cohorts.manifest import Cohort

from .config import TrainConfig
from .roles import Roles, learns_from_abnormal

ENOUGH = 20
"""Fewer normals than that show a network too little of how normal people differ.

Cases are counted, as everywhere in the model card: several of one patient count as several."""


def check_enough_normals(cohort: Cohort, config: TrainConfig, roles: Roles) -> str | None:
    """Refuse to fit a detector to fewer normals than it can learn from.

    Returns
    -------
    str or None
        Where it is fitted to few all the same: the sentence that warns of it; None where there are enough.

    Raises
    ------
    InputError
        If it is neither z-score nor nearest neighbours, and `few_normals` does not allow it.
    """
    # A fusion is fitted to nobody.  What learns from abnormal cases as well lives by both classes and their balance:
    # `Roles.of` asks for either, and validation and the decision are made on both.
    if issubclass(detector_class(config.detector), Composite) or learns_from_abnormal(config):
        return None
    count = sum(case.label == 0 for case in roles.train)
    if count >= ENOUGH:
        return None
    fitted = f"fitted to only {count} normal{'s' if count > 1 else ''}, fewer than {ENOUGH}"
    if _takes_few(config):
        return f"The model is {fitted}: what it finds rare may be common among those that it was not shown."
    if config.few_normals:
        return (
            f"The model is {fitted}, which `few_normals` allowed: {config.detector} can have learnt little of how "
            "normals differ, and its maps are for trying out only."
        )
    raise InputError(
        f"{cohort.path}: {config.detector} would be {fitted}; give it more normals to train on, take zscore, or "
        "features with `method: knn`, which can do with so few, or train all the same with `--set few_normals=true`, "
        "as the model card will say."
    )


def _takes_few(config: TrainConfig) -> bool:
    """Whether the detector estimates next to nothing: two numbers a voxel, or none but the normals themselves."""
    options = config.options
    nearest = (
        config.detector == "features" and options.get("method", "knn") == "knn" and options.get("weights") != "self"
    )
    return nearest or config.detector == "zscore"
