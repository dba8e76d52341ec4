"""Whole heads as anatomies: label maps with FreeSurfer's values, turned upright into the template's frame."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import Canonical, Grid, resample, with_spacing
from AnomalyDetectionLib.imaging.read import read_volume

from .anatomy import CHANNELS, OUTER_CHANNELS, Anatomy, distance_inside
from .deformation import bspline_noise
from .labels import BRAIN, CENTRES_MNI, MIXTURES, OUTER, SOFT, VENTRICLES, WHITE_MATTER

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")
"""File names a folder of label maps is searched for."""

FIELD_OF_VIEW_MM = (208.0, 256.0, 192.0)
"""Extent of the imaged box along (right, anterior, superior): from the vertex to below the foramen magnum."""

FIELD_OF_VIEW_CENTRE = (0.0, -8.0, 12.0)
"""RAS mm of the template's frame."""

_LEAST_WHITE_MM3 = 100_000
"""An adult has some 400 mL of cerebral white matter, a newborn 150."""

_MOST_UNKNOWN = 0.02
_LOWEST_MM = -110.0  # below it, no pose or deformation brings tissue into the field of view
_MARGIN = 3
_SUBCUTANEOUS_MM = 9.0  # skin and the fat beneath it
_FAT_DEEPER = 0.25  # share of fat between the muscles of face and neck
_CLOSING_MM, _RIM_MM = 5.0, 1.5
_EDGE = np.array([0.15, 0.7, 0.15], dtype=np.float32)


def head_files(source: str | Path) -> tuple[Path, ...]:
    """The label maps of a folder in the order of their names, or the one file.

    Raises
    ------
    InputError
        If there is none, or two would give anatomies of the same name.
    """
    source = Path(source)
    if source.is_dir():
        files = tuple(sorted(path for path in source.iterdir() if path.name.lower().endswith(ENDINGS)))
        if not files:
            raise InputError(f"{source}: the folder holds no label map ({', '.join(ENDINGS)}).")
    elif source.exists():
        files = (source,)
    else:
        raise InputError(f"{source}: there is no such file or folder; name label maps of heads, or 'icbm152'.")
    names = [head_name(path) for path in files]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{source}: two label maps are called {repeated[0]!r}; rename one.")
    return files


def head_name(path: Path) -> str:
    """The file's name without its endings: the name of the anatomy."""
    lower = path.name.lower()
    ending = max((ending for ending in ENDINGS if lower.endswith(ending)), key=len, default="")
    return path.name[: len(path.name) - len(ending)] if ending else path.stem


_loaded: dict[Path, Anatomy] = {}


def head(path: Path) -> Anatomy:
    """The anatomy of a label map as `read_head` makes it; the last one is kept.

    One only, and not while the next is made: each takes some 400 MB, twice that with its average over voxels.
    """
    if path not in _loaded:
        _loaded.clear()
        _loaded[path] = read_head(path)
    return _loaded[path]


def read_head(path: Path) -> Anatomy:
    """The anatomy of a label map.

    The head keeps its size and shape; it is turned and moved so that its deep grey nuclei, hippocampi and cerebellum
    lie as in MNI space, and the midline at x = 0.

    Parameters
    ----------
    path
        Image of whole numbers: FreeSurfer's values (2/41 cerebral white matter, 3/42 cortex, 4/43 lateral ventricles,
        24 fluid, ...), around the brain those of `labels.OUTER`.

    Raises
    ------
    InputError
        If the file is no such label map.
    """
    labels, grid = read_labels(path)
    to_frame = _frame(labels, grid, path)
    labels, grid = _cropped(labels, Grid(grid.shape, to_frame @ grid.ijk_to_ras, grid.name))
    whole = bool(np.isin(labels, OUTER).any())
    names = (*CHANNELS, *OUTER_CHANNELS) if whole else CHANNELS
    maps = np.zeros((len(names), *labels.shape), dtype=np.float32)
    for name in (*CHANNELS[:4], *(OUTER_CHANNELS if whole else ())):
        maps[names.index(name)] = _share(labels, name)
    if whole:
        _part_soft_tissue(maps[names.index("fat")], maps[names.index("muscle")], labels, head_name(path))
    for channel, name in enumerate(names):
        if name not in ("brain", "depth", "ventricle"):
            maps[channel] = _soften(maps[channel])
    brain = _brain(labels)
    ventricles = np.isin(labels, VENTRICLES)
    maps[names.index("brain")] = _soften(brain.astype(np.float32))
    maps[names.index("depth")] = distance_inside(brain)
    maps[names.index("ventricle")] = distance_inside(~ventricles) - distance_inside(ventricles)
    return Anatomy(
        head_name(path),
        torch.from_numpy(maps),
        grid,
        channels=names,
        size=1.0,
        field_of_view=FIELD_OF_VIEW_MM,
        centre=FIELD_OF_VIEW_CENTRE,
    )


def read_labels(path: Path) -> tuple[NDArray[np.int16], Grid]:
    """Labels (K, J, I) of a head at 1 mm, with i, j and k towards right, anterior and superior, and their grid.

    Raises
    ------
    InputError
        If the file is no label map of a head.
    """
    volume = read_volume(path)
    array = volume.array
    if volume.is_slice or min(np.array(volume.shape[::-1]) * volume.spacing) < 100:
        raise InputError(
            f"{path}: the label map is too small for a head; it must be a volume of at least 100 mm a side."
        )
    if not np.isfinite(array).all() or (array != np.round(array)).any() or array.min() < 0 or array.max() > 32767:
        raise InputError(f"{path}: this is no label map, for its values are not all whole numbers from 0 to 32767.")
    canonical = Canonical.of(volume.grid)
    labels, grid = canonical.apply(array), canonical.grid(volume.grid)
    if max(abs(size - 1) for size in grid.spacing) > 0.02:
        fine = with_spacing(grid, (1.0, 1.0, 1.0))
        labels, grid = resample(np.ascontiguousarray(labels), grid, fine, nearest=True), fine
    labels = np.ascontiguousarray(labels, dtype=np.int16)
    _check(labels, path)
    return labels, grid


def _check(labels: NDArray[np.int16], path: Path) -> None:
    counts = np.bincount(labels.ravel())
    white = [int(counts[label]) if label < counts.size else 0 for label in WHITE_MATTER]
    if min(white) == 0 or sum(white) < _LEAST_WHITE_MM3:
        raise InputError(
            f"{path}: the labels show {sum(white) / 1000:.0f} mL of cerebral white matter (2 left, 41 right); a label "
            "map with FreeSurfer's values and at least 100 mL of it, on both sides, is needed."
        )
    if not any(label < counts.size and counts[label] for label in VENTRICLES):
        raise InputError(f"{path}: the labels show no lateral ventricles (4 left, 43 right).")
    unknown = [int(n) for n in np.flatnonzero(counts) if n and n not in MIXTURES and n != SOFT]
    share = counts[unknown].sum() / counts[1:].sum() if unknown else 0
    if share > _MOST_UNKNOWN:
        most = max(unknown, key=lambda label: counts[label])
        raise InputError(f"{path}: {share:.0%} of the head has labels that are not FreeSurfer's, such as {most}.")


def _frame(labels: NDArray[np.int16], grid: Grid, path: Path) -> NDArray[np.float64]:
    """4 x 4 rigid map from the file's RAS to the template's frame, by centres of paired structures (Kabsch 1976)."""
    found, wanted = [], []
    for (left, right), (x, y, z) in CENTRES_MNI.items():
        for label, target in ((left, (-x, y, z)), (right, (x, y, z))):
            places = np.argwhere(labels == label)
            if len(places):
                found.append(grid.to_ras(places.mean(axis=0)[::-1]))
                wanted.append(target)
    here, there = np.array(found), np.array(wanted)
    if len(here) < 6 or np.linalg.svd(there - there.mean(axis=0), compute_uv=False)[-1] < 5:
        raise InputError(
            f"{path}: the labels show too few of thalami, caudates, putamina, pallida, hippocampi, amygdalae and "
            "cerebellum to tell how the head lies; at least three pairs are needed, not all at one height."
        )
    u, _, vt = np.linalg.svd((here - here.mean(axis=0)).T @ (there - there.mean(axis=0)))
    proper = np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))])
    frame = np.eye(4)
    frame[:3, :3] = vt.T @ proper @ u.T
    frame[:3, 3] = there.mean(axis=0) - frame[:3, :3] @ here.mean(axis=0)
    return frame


def _cropped(labels: NDArray[np.int16], grid: Grid) -> tuple[NDArray[np.int16], Grid]:
    """The largest piece, down to what any scan can show, with a margin of nothing on all faces but the lowest.

    Where the map ends below, its last slice is what sampling finds further down: the neck goes on.
    """
    head = _largest(labels > 0)  # the rest is speckle in the air
    low, high = zip(*((part.start, part.stop) for part in ndimage.find_objects(head.astype(np.uint8))[0]), strict=True)
    floor = [
        grid.to_ijk(np.array([x, y, _LOWEST_MM]))[2] for x in (-104, 104) for y in (-136, 120)
    ]  # a head may lie askew in its file
    low = (max(low[0], int(min(floor))), low[1], low[2])
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    kept = np.pad(np.where(head[box], labels[box], 0), [(0, _MARGIN), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)])
    affine = grid.ijk_to_ras.copy()
    affine[:3, 3] = grid.to_ras(np.array([low[2] - _MARGIN, low[1] - _MARGIN, low[0]]))
    return kept.astype(np.int16), Grid(kept.shape, affine, grid.name)


def _share(labels: NDArray[np.int16], tissue: str) -> NDArray[np.float32]:
    table = np.zeros(int(labels.max()) + 1, dtype=np.float32)
    for label, mixture in MIXTURES.items():
        if label < table.size:
            table[label] = mixture.get(tissue, 0)
    return table[labels]


def _part_soft_tissue(
    fat: NDArray[np.float32], muscle: NDArray[np.float32], labels: NDArray[np.int16], name: str
) -> None:
    """Divide the label `SOFT`: fat beneath the skin, deeper down muscles with fat between them."""
    soft = labels == SOFT
    depth = distance_inside(ndimage.binary_fill_holes(labels > 0))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    lumps = bspline_noise(labels.shape, (1.0, 1.0, 1.0), 9.0, rng)[0].numpy()
    beneath = np.clip((_SUBCUTANEOUS_MM + 2 * lumps - depth) / 2 + 0.5, 0, 1)
    between = np.clip(0.5 + 3 * (lumps - np.quantile(lumps[::4, ::4, ::4], 1 - _FAT_DEEPER)), 0, 1)
    share = np.where(soft, np.maximum(beneath, 0.85 * between), 0).astype(np.float32)
    fat += share
    muscle += np.where(soft, 1 - share, 0)


def _brain(labels: NDArray[np.int16]) -> NDArray[np.bool_]:
    """The brain as skull stripping leaves it: tissue, the fluid of sulci and cisterns and a rim of it, no bone."""
    tissue = _largest(np.isin(labels, list(BRAIN)))
    reach = distance_inside(~tissue)
    closed = distance_inside(reach < _CLOSING_MM + _RIM_MM) > _CLOSING_MM
    brain = ndimage.binary_fill_holes(closed & ~np.isin(labels, (SOFT, *OUTER)) & (labels > 0)) | tissue
    brain[0] = False  # or sampling would find a brainstem all the way down
    return _largest(brain)  # without pockets of fluid that bone cuts off


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected piece."""
    regions, count = ndimage.label(mask)
    return regions == 1 + int(np.argmax(np.bincount(regions.ravel())[1:])) if count > 1 else mask


def _soften(channel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Partial volume of a scanner's 1 mm voxel: labels have hard edges."""
    for axis in range(3):
        channel = ndimage.convolve1d(channel, _EDGE, axis=axis, mode="nearest")
    return channel
