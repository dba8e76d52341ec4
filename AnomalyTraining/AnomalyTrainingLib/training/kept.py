"""Cases on the detector's grid, kept on disk in half precision and mapped into memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from AnomalyDetectionLib.errors import OutputError
from AnomalyDetectionLib.imaging.geometry import resample
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.prepare import Prepared, check_fits, prepare
from AnomalyTrainingLib.cohorts.manifest import Case, load_case_mask, load_case_volume

ContextOf = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class _OnDisk:
    """An array in a file, mapped when it is asked for.

    A mapping that stays holds its file open: with two or more a case, some hundred cases would be more than a system
    lets one process have.  What numpy's header says is remembered: reading it takes longer than mapping.
    """

    path: Path
    kind: np.dtype
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, path: Path) -> _OnDisk:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return cls(path, array.dtype, array.shape, array.offset)

    def mapped(self) -> NDArray:
        return np.memmap(self.path, self.kind, "r", self.offset, self.shape)


@dataclass(frozen=True)
class KeptCase:
    """One case as it comes out of `scoring.prepare`: its slices, or the whole volume as one item.

    Each array is mapped anew whenever it is asked for.
    """

    files: Mapping[str, _OnDisk]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, *spatial) of the image."""
        return self.files["image"].shape

    @property
    def image(self) -> NDArray[np.float16]:
        """float16 (N, C, *spatial)."""
        return self.files["image"].mapped()

    @property
    def foreground(self) -> NDArray[np.bool_]:
        """bool (N, 1, *spatial)."""
        return self.files["foreground"].mapped()

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """bool (N, 1, *spatial): the abnormal voxels; None where the case has no mask or none was asked for."""
        return self.files["mask"].mapped() if "mask" in self.files else None

    @property
    def context(self) -> NDArray[np.float16] | None:
        """float16 (N, K, *spatial): what `Detector.context` says of the case; None where it says nothing."""
        return self.files["context"].mapped() if "context" in self.files else None


def keep(
    case: Case,
    spec: InputSpec,
    template: Template | None,
    folder: Path,
    masks: bool = False,
    context: ContextOf | None = None,
) -> KeptCase:
    """Prepare a case, unless its files are in the folder already.

    Parameters
    ----------
    masks
        Keep the case's mask beside the image, if it has one.
    context
        Works out what is kept as the case's context.

    Raises
    ------
    InputError
        If the image or its mask cannot be used.
    OutputError
        If the files cannot be written.
    """
    names = ["image", "foreground"] + (["mask"] if masks and case.mask is not None else [])
    names += ["context"] if context is not None else []
    paths = {name: folder / f"{case.case}.{name}.npy" for name in names}
    if not all(path.exists() for path in paths.values()):
        volume = load_case_volume(case)
        check_fits(volume, spec)
        prepared = prepare(volume, spec, template)
        arrays: dict[str, NDArray] = {"image": prepared.batch.image.numpy().astype(np.float16)}
        arrays["foreground"] = prepared.batch.foreground.numpy()
        if "mask" in paths and (painted := load_case_mask(case, volume)) is not None:
            arrays["mask"] = mask_items(painted, prepared)
        if context is not None:
            arrays["context"] = context(prepared.batch).numpy().astype(np.float16)
        for name, path in paths.items():
            _save(path, arrays[name])
    return KeptCase({name: _OnDisk.of(path) for name, path in paths.items()})


def mask_items(painted: NDArray[np.bool_], prepared: Prepared) -> NDArray[np.bool_]:
    """A mask on the image's own grid (K, J, I), as items like those of the prepared image: bool (N, 1, *spatial)."""
    placed = resample(painted, prepared.source, prepared.grid, prepared.to_source, nearest=True)
    return placed[None, None] if prepared.slices is None else placed[prepared.slices][:, None]


def _save(path: Path, array: NDArray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(buffer.getbuffer())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: the prepared image cannot be kept ({error.strerror or error}).") from error
    finally:
        partial.unlink(missing_ok=True)
