"""`fusion`: several fitted models add up what they find rare.

Every member's map is brought to rarity, -log10 of the share p of normal voxels that score at least as high, by that
member's own calibration.  Whatever a raw score measures and however heavy its tail, on normals the rarity of each
member follows the same exponential distribution (10^-rarity is uniform), and the Pareto tail of the calibration goes on
with it beyond the normals: so rarities can be added, where raw scores, or scores stretched between an image's own least
and greatest value, cannot.  The sum of -log10 p is Fisher's combination of tests (Statistical Methods for Research
Workers, 1932); the mean of the k highest, with k = 1, is Tippett's (1931).  Their textbook distributions hold for
independent members only, and members that look at the same image are not (Brown, Biometrics 1975, scales for it): the
fusion is therefore calibrated on normals again like any other detector, and only the order that the rule gives matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import Grid
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.scoring.calibration import Calibrator
from AnomalyDetectionLib.scoring.composite import Composite, Member
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec, Scores
from AnomalyDetectionLib.scoring.registry import BUILT_IN, build
from AnomalyDetectionLib.scoring.result import ModelIdentity

Rule = Literal["sum", "mean", "max-of-k"]

LEAST_MEMBERS, MOST_MEMBERS = 2, 16


class Fusion(Composite):
    """Fitted models whose rarity is added up.

    Parameters
    ----------
    members
        Before fitting the folders of the members' bundles; afterwards what `config` says of each.
    rule
        "sum" or "mean" of the members' rarity (one order, and so one calibrated map); "max-of-k": the mean of the `k`
        highest at each voxel, for members that see different things.
    weights
        For "sum" and "mean": a positive number for each member; None for 1.
    k
        For "max-of-k".

    Raises
    ------
    InputError
        If there are too few members, they do not go together, or the rule does not fit them.

    Notes
    -----
    The members' states and templates are part of this detector's state, their specs and calibrations of its `config`:
    a fused bundle needs no other.  Members are detectors that come with this software; no other code is loaded.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        members: Sequence[Any] = (),
        rule: Rule = "sum",
        weights: Sequence[float] | None = None,
        k: int = 1,
    ) -> None:
        super().__init__(spec)
        _check(members, rule, weights, k)
        self.rule, self.k = rule, k
        self.weights = None if weights is None else tuple(float(weight) for weight in weights)
        self.described = [dict(member) for member in members if isinstance(member, Mapping)]
        self.detectors = nn.ModuleList(
            build(_built_in(member["detector"]), member["spec"], member["config"]) for member in self.described
        )
        # Here and not when they are asked for: a damaged bundle is to be refused when it is read.
        self._identities = [ModelIdentity(**member["identity"]) for member in self.described]
        self._calibrators = [Calibrator.from_json(member["calibrator"]) for member in self.described]
        for number, member in enumerate(self.described):
            if member["template"] is not None:
                for name, values in _empty(member["template"]).items():
                    self.register_buffer(f"template_{number}_{name}", values)
        if self.described:
            self.spec = common_spec([detector.spec for detector in self.detectors])  # type: ignore[misc]
        self._members: tuple[Member, ...] | None = None

    @classmethod
    def of(cls, members: Sequence[Member], **options: Any) -> Fusion:
        """A fusion of fitted models.

        Parameters
        ----------
        options
            `rule`, `weights` and `k`.
        """
        spec = common_spec([member.detector.spec for member in members])
        fusion = cls(spec, members=[_described(member) for member in members], **options)
        state: dict[str, Tensor] = {}
        for number, member in enumerate(members):
            state |= {f"detectors.{number}.{key}": value for key, value in member.detector.state_dict().items()}
            if member.template is not None:
                kept = _as_tensors(member.template)
                state |= {f"template_{number}_{name}": values for name, values in kept.items()}
        fusion.load_state_dict(state, strict=True)
        return fusion.eval().requires_grad_(False)

    def config(self) -> dict[str, Any]:
        return {
            "members": self.described,
            "rule": self.rule,
            "weights": None if self.weights is None else list(self.weights),
            "k": self.k,
        }

    @property
    def members(self) -> Sequence[Member]:
        if self._members is None:
            templates: list[Template] = []
            members = []
            for number, described in enumerate(self.described):
                template = self._template(number, templates) if described["template"] is not None else None
                identity, calibrator = self._identities[number], self._calibrators[number]
                members.append(Member(identity, self.detectors[number], template, calibrator))  # type: ignore[arg-type]
            self._members = tuple(members)
        return self._members

    def combine(self, rarity: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.rule == "max-of-k":
            highest = np.partition(rarity, rarity.shape[0] - self.k, axis=0)[rarity.shape[0] - self.k :]
            return highest.mean(axis=0, dtype=np.float32)
        weights = np.array(self.weights or [1.0] * rarity.shape[0], dtype=np.float32)
        total = np.zeros(rarity.shape[1], dtype=np.float32)
        for weight, values in zip(weights, rarity, strict=True):
            total += weight * values
        return total / weights.sum() if self.rule == "mean" else total

    def score(self, batch: Batch) -> Scores:
        raise TypeError("a fusion has no batch of its own: its members score the image, each on its own grid")

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        self._members = None
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _template(self, number: int, known: list[Template]) -> Template:
        """A member's template; members of equal templates get the same object, so that images are aligned once."""
        image, foreground, affine = (
            getattr(self, f"template_{number}_{name}").cpu().numpy() for name in ("image", "foreground", "affine")
        )
        mask = np.unpackbits(foreground, count=image.size).reshape(image.shape).astype(bool)
        template = Template(image.astype(np.float32), mask, Grid(image.shape, affine, "template"))
        for other in known:
            if other.same_as(template):
                return other
        known.append(template)
        return template


def common_spec(specs: Sequence[InputSpec]) -> InputSpec:
    """The first spec, for the modalities that all take.

    Raises
    ------
    InputError
        If no image fits them all.
    """
    first = specs[0]
    modalities = first.modalities
    for spec in specs[1:]:
        if spec.channels != first.channels:
            raise InputError(
                f"fusion: a member takes the channels {', '.join(first.channels)}, another {', '.join(spec.channels)}; "
                "members must take the same images."
            )
        if (spec.grid == "frame") != (first.grid == "frame"):
            raise InputError("fusion: a member judges single images, another volumes; members must take the same.")
        shared = tuple(m for m in modalities if m in spec.modalities) if spec.modalities else modalities
        if modalities and spec.modalities and not shared:
            raise InputError(
                f"fusion: a member is for {'/'.join(modalities)}, another for {'/'.join(spec.modalities)}; members "
                "must be of one modality."
            )
        modalities = shared or spec.modalities
    return replace(first, modalities=modalities)


def _described(member: Member) -> dict[str, Any]:
    """What `config` says of a member, as plain JSON values."""
    return {
        "identity": asdict(member.identity),
        "detector": member.identity.detector,
        "spec": member.detector.spec.to_json(),
        "config": member.detector.config(),
        "calibrator": member.calibrator.to_json(),
        "template": None if member.template is None else list(member.template.image.shape),
    }


def _as_tensors(template: Template) -> dict[str, Tensor]:
    """A template as a state keeps it: the image in half precision, which is all it has; eight voxels of mask a byte."""
    return {
        "image": torch.from_numpy(template.image.astype(np.float16)),
        "foreground": torch.from_numpy(np.packbits(template.foreground)),
        "affine": torch.from_numpy(np.array(template.grid.ijk_to_ras, dtype=np.float64)),
    }


def _empty(shape: Sequence[int]) -> dict[str, Tensor]:
    return {
        "image": torch.zeros(tuple(shape), dtype=torch.float16),
        "foreground": torch.zeros(math.ceil(math.prod(shape) / 8), dtype=torch.uint8),
        "affine": torch.eye(4, dtype=torch.float64),
    }


def _built_in(name: str) -> str:
    if name not in BUILT_IN:
        raise InputError(
            f"fusion: a member is of the detector {name!r}, which does not come with this software; only those that do "
            "can be fused."
        )
    if name == "fusion":
        raise InputError("fusion: a member is a fusion itself; name its members instead.")
    return name


def _check(members: Sequence[Any], rule: str, weights: Sequence[float] | None, k: int) -> None:
    if not members:
        raise InputError("fusion: options.members is empty; name fitted models, as --set options.members=[A,B] does.")
    if not LEAST_MEMBERS <= len(members) <= MOST_MEMBERS:
        raise InputError(f"fusion: {len(members)} members; there must be {LEAST_MEMBERS} to {MOST_MEMBERS}.")
    kinds = {Mapping if isinstance(member, Mapping) else type(member) for member in members}
    if kinds not in ({Mapping}, {str}):
        raise InputError("fusion: members are folders of bundles.")
    if rule not in get_args(Rule):
        raise InputError(f"fusion: rule {rule!r} is none of {', '.join(get_args(Rule))}.")
    if weights is not None:
        if rule == "max-of-k":
            raise InputError("fusion: the rule max-of-k has no weights.")
        if len(weights) != len(members) or not all(math.isfinite(w) and w > 0 for w in weights):
            raise InputError(f"fusion: weights must be {len(members)} positive numbers, one for each member.")
    if not 1 <= k <= len(members) or (k != 1 and rule != "max-of-k"):
        raise InputError(f"fusion: k is {k}; for the rule max-of-k it lies between 1 and the number of members.")
