"""Whether the cases of an evaluation are held out: what the model has seen stands in its bundle as hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.seen import patient_hash, pixel_hash
from AnomalyDetectionLib.scoring.model import Model

from ..cohorts.manifest import Case
from .baselines.fit import ROLES

_SHOWN = 3


class Seen:
    """What a model has seen, as far as its bundle says.

    Parameters
    ----------
    split
        The split that is evaluated: what was chosen on `validate` may be looked at there, though not as a test.
    """

    def __init__(self, model: Model, split: str) -> None:
        used: Mapping[str, Any] = model.info.get("used", {})
        self.known = "train" in used
        self._model = f"{model.identity.id} {model.identity.version}"
        self._roles = [role for role in ROLES if role in used and not role == split == "validate"]
        self._patients = {role: set(used[role]["patients_sha256"]) for role in self._roles}
        self._images = {role: set(used[role]["images_sha256"]) for role in self._roles}

    def check_patients(self, cases: Sequence[Case]) -> None:
        """Refuse cases of patients whom the model has seen.

        Raises
        ------
        InputError
            Naming some of them.
        """
        patients = sorted({case.patient for case in cases})
        for role in self._roles:
            shared = [patient for patient in patients if patient_hash(patient) in self._patients[role]]
            if shared:
                names = ", ".join(shared[:_SHOWN]) + (", …" if len(shared) > _SHOWN else "")
                raise InputError(
                    f"{len(shared)} of {len(patients)} patients ({names}) were in the split {role!r} that "
                    f"{self._model} was made with, so they are not held out; leave them out, or take a model that has "
                    "not seen them."
                )

    def check_image(self, case: Case, volume: Volume) -> None:
        """Refuse an image that the model has seen, under whatever name.

        Raises
        ------
        InputError
            Naming the case.
        """
        digest = pixel_hash(volume)
        for role in self._roles:
            if digest in self._images[role]:
                raise NotHeldOut(
                    f"{case.case}: the very same image was in the split {role!r} that {self._model} was made with, so "
                    "it is not held out; leave this case out."
                )


class NotHeldOut(InputError):
    """The evaluation as a whole is not to be believed; leaving the one case out is for the user to decide."""
