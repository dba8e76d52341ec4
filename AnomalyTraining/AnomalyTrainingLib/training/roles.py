"""Which cases of a cohort are used for what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.composite import Composite
from AnomalyDetectionLib.scoring.registry import detector_class
from AnomalyTrainingLib.cohorts.manifest import Case, Cohort
from AnomalyTrainingLib.cohorts.splits import fold_of_patients

from .config import TrainConfig
from .seeds import seed_of

CROSS_BELOW = 60
"""With fewer normals than that (of train and calibrate together) too few would be left to calibrate on."""


def learns_from_abnormal(config: TrainConfig) -> bool:
    """Whether the detector is fitted to normal and abnormal cases."""
    return detector_class(config.detector).supervision in ("labels", "masks")


@dataclass(frozen=True)
class Roles:
    """The cases of a cohort by what they are used for.

    Attributes
    ----------
    train, calibrate
        Normals that the detector is fitted to and calibrated on: the splits of these names, or all of both for both
        where calibration is cross-conformal.  A detector that learns from labels or masks is fitted to the abnormal
        cases of the split train as well, one that is put together of others to nobody.
    validate
        Normals that tell a detector trained by gradient when to stop, and abnormal cases where it learns from these;
        may be empty.
    decide
        Normal and abnormal cases that thresholds and probabilities are fitted to; empty unless thresholds are chosen by
        ROC or the detector gives log-odds.
    folds
        Of cross-conformal calibration; 0 where the calibration normals are held out.
    """

    train: tuple[Case, ...]
    calibrate: tuple[Case, ...]
    validate: tuple[Case, ...] = ()
    decide: tuple[Case, ...] = ()
    folds: int = 0

    @classmethod
    def of(cls, cohort: Cohort, config: TrainConfig) -> Roles:
        """The roles that a configuration gives the cases of a cohort.

        Raises
        ------
        InputError
            If the cases for a role are missing.
        """
        train, calibrate = (tuple(cohort.of(split=name, label=0)) for name in ("train", "calibrate"))
        validate = tuple(cohort.of(split="validate"))
        normals = tuple(case for case in validate if case.label == 0)
        detector = detector_class(config.detector)
        ill: tuple[Case, ...] = ()
        if detector.supervision == "labels":
            ill = tuple(cohort.of(split="train", label=1))
            _check_classes(cohort, config.detector)
            normals = validate
        by_roc = config.threshold.method == "roc"
        well = sum(case.label == 0 for case in validate)
        if by_roc and well in (0, len(validate)):
            raise InputError(
                f"{cohort.path}: `threshold.method: roc` chooses thresholds on normal and abnormal cases of the split "
                f"'validate', and there are {well} normal and {len(validate) - well} abnormal ones; "
                "add them, or use `method: normals`."
            )
        decide = validate if by_roc or detector.gives_log_odds else ()
        if detector.supervision == "masks":
            ill = _with_masks(cohort, "train", config.detector)
            normals = (*normals, *_with_masks(cohort, "validate", config.detector))
            if not ill:
                raise InputError(
                    f"{cohort.path}: {config.detector} learns from abnormal cases with masks, and there is none (label "
                    "1) in the split 'train'; assign some to it."
                )
        method = config.calibration.method
        if issubclass(detector_class(config.detector), Composite):
            if not calibrate:
                raise InputError(
                    f"{cohort.path}: there is no normal case (label 0) in the split 'calibrate', by which a fusion is "
                    "calibrated; take normals that no member has learnt from."
                )
            return cls((), calibrate, normals, decide)
        if method == "cross" or (method == "auto" and len(train) + len(calibrate) < CROSS_BELOW):
            both = (*train, *calibrate)
            patients = len({case.patient for case in both})
            if patients < 2:
                raise InputError(
                    f"{cohort.path}: cross-conformal calibration needs normals (label 0) of at least 2 patients in the "
                    f"splits 'train' and 'calibrate'; there {'is one' if patients else 'are none'}."
                )
            return cls((*both, *ill), both, normals, decide, min(config.calibration.folds, patients))
        for name, cases in (("train", train), ("calibrate", calibrate)):
            if not cases:
                raise InputError(
                    f"{cohort.path}: there is no normal case (label 0) in the split {name!r}; "
                    "make the manifest with --split, or fill in its split column."
                )
        return cls((*train, *ill), calibrate, normals, decide)

    def notice(self) -> str | None:
        """What cross-conformal calibration means for the run, for who starts it; None where normals are held out."""
        if not self.folds:
            return None
        what = "normals" if len(self.train) == len(self.calibrate) else "cases"
        return (
            f"Calibration is cross-conformal: {self.folds + 1} detectors are fitted, one to all {len(self.train)} "
            f"{what} and {self.folds} that each leave out the normals they score (`--set calibration.method=split` "
            "fits one, and holds the split 'calibrate' out)."
        )


def _with_masks(cohort: Cohort, split: str, detector: str) -> tuple[Case, ...]:
    """The abnormal cases of a split.

    Raises
    ------
    InputError
        Naming some that have no mask.
    """
    cases = cohort.of(split=split, label=1).cases
    bare = [case.case for case in cases if case.mask is None]
    if bare:
        names = ", ".join(bare[:3]) + (", ..." if len(bare) > 3 else "")
        raise InputError(
            f"{cohort.path}: {detector} learns from masks, and {len(bare)} of {len(cases)} abnormal cases of the split "
            f"{split!r} have none ({names}); name their masks in the column 'mask', or take them out of the split."
        )
    return cases


def _check_classes(cohort: Cohort, detector: str) -> None:
    """Refuse a cohort in which a detector that learns from labels has but one class to learn from or be judged by."""
    for split in ("train", "validate"):
        for label, word in ((0, "normal"), (1, "abnormal")):
            if not cohort.of(split=split, label=label).cases:
                raise InputError(
                    f"{cohort.path}: {detector} learns from normal and abnormal cases, and the split {split!r} has no "
                    f"{word} one (label {label}); add some, or divide the cohort anew with --split --supervised."
                )


def folds_of(cases: tuple[Case, ...], count: int, seed: int) -> Iterator[tuple[tuple[Case, ...], tuple[Case, ...]]]:
    """(those to fit to, those left out) of each fold, stratified as the splits are.

    A patient's cases stay together, and each is left out once.
    """
    fold = fold_of_patients(cases, count, seed=seed_of("folds", seed))
    for number in range(count):
        yield (
            tuple(case for case in cases if fold[case.patient] != number),
            tuple(case for case in cases if fold[case.patient] == number),
        )


def check_folds(cohort: Cohort, roles: Roles, seed: int) -> None:
    """Refuse cross-conformal calibration in which a fold's detector would be fitted without one of the classes.

    Raises
    ------
    InputError
        Naming the fold and the class.
    """
    if not roles.folds:
        return
    wanted = {case.label for case in roles.train}
    for number, (rest, _) in enumerate(folds_of(roles.train, roles.folds, seed), 1):
        for label in sorted(wanted - {case.label for case in rest}):
            word = ("normal", "abnormal")[label]
            raise InputError(
                f"{cohort.path}: without the cases that fold {number} of {roles.folds} leaves out there is no {word} "
                f"one (label {label}) to fit its detector to; add {word} cases of more patients, or hold calibration "
                "normals out with `--set calibration.method=split`."
            )
