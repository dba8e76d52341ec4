"""The anatomy phantoms are made from: tissue maps, and the distances to the brain's surface and the ventricles."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import Grid

from .acquisition import CENTRE_RAS, FIELD_OF_VIEW_MM

TISSUES = ("gm", "wm", "csf")
"""Tissue fractions every anatomy has; inside the brain they sum to 1."""

CHANNELS = (*TISSUES, "texture", "brain", "depth", "ventricle")
"""What can be sampled at a place of an anatomy.

`texture` is what the template's own T1 image adds to the mixture of its tissues (in units of white matter), `brain`
the share of brain in the voxel, `depth` and `ventricle` the distance in mm to the brain's surface (positive inside) and
to the lateral and third ventricles (positive outside).
"""

OUTER_CHANNELS = ("muscle", "fat", "skin", "mucosa")
"""Further channels of whole heads: shares of the tissues around the brain.  Air and compact bone have no share."""

_T1_OF_TISSUE = {"gm": 166.0, "wm": 220.0, "csf": 66.0}  # means of the ICBM152 T1 where a map exceeds 200 of 255
_MARGIN = 2
"""Voxels of nothing around the template, whose brainstem is cut off by the edge of its box."""
_TEMPLATE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A template from which individual phantoms are deformed.

    Attributes
    ----------
    maps
        float32 tensor (len(channels), K, J, I) on `grid`.
    grid
        Where the maps lie; RAS millimetres of the template.
    channels
        Names of the maps: `CHANNELS`, in a whole head `OUTER_CHANNELS` too.
    size
        By which factor the anatomy is larger than the mean of the individuals made from it.
    field_of_view, centre
        Extent (mm) of the scanned box along (right, anterior, superior) and its middle (RAS mm); the largest individual
        brain fits with its pose.
    """

    name: str
    maps: Tensor
    grid: Grid
    channels: tuple[str, ...] = CHANNELS
    size: float = 1.04
    field_of_view: tuple[float, float, float] = FIELD_OF_VIEW_MM
    centre: tuple[float, float, float] = CENTRE_RAS
    _averaged: dict[tuple[float, float, float], Anatomy] = field(default_factory=dict, repr=False)

    @property
    def whole(self) -> bool:
        """Whether it has the tissue around the brain."""
        return set(OUTER_CHANNELS) <= set(self.channels)

    def sample(self, points: Tensor, channels: tuple[str, ...] = CHANNELS) -> dict[str, NDArray[np.float32]]:
        """Linear interpolation of channels at points.

        Parameters
        ----------
        points
            float32 (K, J, I, 3), RAS mm of the template.

        Returns
        -------
        channel name to float32 (K, J, I); beyond the template's box the value at its border
        (no brain).
        """
        inverse = torch.from_numpy(np.linalg.inv(self.grid.ijk_to_ras)).to(torch.float32)
        size = torch.tensor(self.grid.shape[::-1], dtype=torch.float32)
        ijk = points @ inverse[:3, :3].T + inverse[:3, 3]
        wanted = [self.channels.index(channel) for channel in channels]
        adjoining = wanted == list(range(wanted[0], wanted[-1] + 1))
        # A slice is a view; a list of channels would copy some 200 MB at each call.
        maps = self.maps[wanted[0] : wanted[-1] + 1] if adjoining else self.maps[wanted]
        values = torch.nn.functional.grid_sample(
            maps[None], (2 * ijk / (size - 1) - 1)[None], mode="bilinear", padding_mode="border", align_corners=True
        )[0]
        return dict(zip(channels, values.numpy(), strict=True))

    def at_resolution(self, spacing: tuple[float, float, float]) -> Anatomy:
        """The same anatomy averaged over a voxel of that size (mm), so that samples show partial volume.

        Each voxel size is a box of that width; the template's own 1 mm voxel is already in the maps.  The last size
        asked for is kept.
        """
        if spacing not in self._averaged:
            self._averaged.clear()
            self._averaged[spacing] = self._average(spacing)
        return self._averaged[spacing]

    def _average(self, spacing: tuple[float, float, float]) -> Anatomy:
        maps = self.maps.numpy().copy()
        mixed = [index for index, name in enumerate(self.channels) if name not in ("depth", "ventricle")]
        for axis, (size, own) in enumerate(zip(spacing[::-1], self.grid.spacing[::-1], strict=True)):
            if size > own:
                kernel = _box(size / own)
                for channel in mixed:
                    maps[channel] = ndimage.convolve1d(maps[channel], kernel, axis=axis, mode="nearest")
        return replace(self, maps=torch.from_numpy(maps), _averaged={})


def _box(width: float) -> NDArray[np.float32]:
    """A box of that many voxels as an odd symmetric kernel, fractional ends included; sums to 1."""
    half = int(np.ceil((width - 1) / 2))
    kernel = np.ones(2 * half + 1)
    kernel[[0, -1]] = (width - (2 * half - 1)) / 2 if half else 1.0
    return (kernel / kernel.sum()).astype(np.float32)


@lru_cache(maxsize=1)
def icbm152() -> Anatomy:
    """The ICBM 2009a symmetric average brain (Fonov et al., NeuroImage 2011), skull-stripped.

    Read from where the nilearn package carries it.

    Raises
    ------
    InputError
        If nilearn is not installed or does not carry the files.
    """
    t1, gm, wm = (_nilearn_map(kind) for kind in ("t1", "gm", "wm"))
    affine = t1.affine.astype(np.float64)
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, _MARGIN)
    t1_array, gm_array, wm_array = (
        np.pad(np.asarray(image.dataobj, dtype=np.float32).T, _MARGIN) for image in (t1, gm, wm)
    )
    brain = ndimage.binary_fill_holes(t1_array > 0)
    gm_array, wm_array = (np.where(brain, array / 255, 0) for array in (gm_array, wm_array))
    total = np.maximum(gm_array + wm_array, 1e-6)
    excess = np.maximum(total, 1)  # the maps were smoothed separately: together they may pass 1 by a few percent
    gm_array, wm_array = gm_array / excess, wm_array / excess
    csf = np.where(brain, np.maximum(1 - gm_array - wm_array, 0), 0)
    mixture = gm_array * _T1_OF_TISSUE["gm"] + wm_array * _T1_OF_TISSUE["wm"] + csf * _T1_OF_TISSUE["csf"]
    texture = np.where(brain, (t1_array - mixture) / _T1_OF_TISSUE["wm"], 0)
    depth = distance_inside(brain)
    ventricles = _ventricles(csf, depth, affine)
    distance = distance_inside(~ventricles) - distance_inside(ventricles)
    stack = np.stack([gm_array, wm_array, csf, texture, brain, depth, distance]).astype(np.float32)
    return Anatomy("icbm152", torch.from_numpy(stack), Grid(t1_array.shape, affine, "icbm152"))


def _nilearn_map(kind: str) -> nibabel.Nifti1Image:
    # find_spec asks where the package lies; importing it would take a second, and it is only a carrier here.
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise InputError(
            "The ICBM152 template comes with the Python package 'nilearn', which is not installed; install it."
        )
    path = Path(spec.origin).parent / "datasets" / "data" / _TEMPLATE.format(kind)
    if not path.is_file():
        raise InputError(f"{path}: this version of nilearn does not carry the ICBM152 template; install nilearn 0.14.")
    return nibabel.load(path)


def distance_inside(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance in voxels to where `mask` is false, good to a voxel.

    Worked out at half the resolution, which is eight times as fast.
    """
    coarse = torch.from_numpy(2 * ndimage.distance_transform_edt(mask[::2, ::2, ::2]).astype(np.float32))
    size = tuple(2 * n - 1 for n in coarse.shape)
    fine = torch.nn.functional.interpolate(coarse[None, None], size, mode="trilinear", align_corners=True)[0, 0].numpy()
    extra = [(0, n - m) for n, m in zip(mask.shape, fine.shape, strict=True)]  # 1 where the size is even
    return np.pad(fine, extra, mode="edge")


def _ventricles(csf: NDArray, depth: NDArray, affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Lateral and third ventricles: the largest pool of fluid deep in the brain, above the basal cisterns."""
    lowest = round((-5 - affine[2, 3]) / affine[2, 2])  # MNI z = -5 mm: the interpeduncular cistern is below
    pools = (csf > 0.5) & (depth > 20)
    pools[:lowest] = False
    labels, count = ndimage.label(pools)
    if count == 0:
        raise InputError("The tissue maps show no ventricles; this is not the anatomy the phantoms are made from.")
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


ANATOMIES: Mapping[str, Callable[[], Anatomy]] = {"icbm152": icbm152}
"""Anatomies phantoms can be made from, by name."""
