"""Small DICOM files with whatever a test needs to be wrong or unusual in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

STORAGE = {
    "MR": MRImageStorage,
    "CT": CTImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "US": UltrasoundMultiFrameImageStorage,
    "NM": NuclearMedicineImageStorage,
    "OT": SecondaryCaptureImageStorage,
}


def image(pixels: NDArray, modality: str = "MR", **elements: Any) -> Dataset:
    """A data set with these stored values ((rows, columns), frames first, RGB last) and further elements by keyword."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = STORAGE[modality], generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.PatientName, dataset.Modality = "Secret^Name", modality
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    frames = pixels.shape[0] if pixels.ndim - colour == 3 else None
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if frames is not None:
        dataset.NumberOfFrames = frames
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    """Write a data set as a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def slices(
    positions: Sequence[float] | NDArray,
    *,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    modality: str = "MR",
    size: tuple[int, int] = (6, 8),
    seed: int = 0,
    **elements: Any,
) -> list[Dataset]:
    """Slices at these millimetres along their normal (or at these points), random values, 2 x 1.5 mm pixels."""
    generator = np.random.default_rng(seed)
    normal = np.cross(orientation[:3], orientation[3:])
    found = []
    for number, place in enumerate(positions):
        point = np.asarray(place, dtype=float) if np.ndim(place) else np.array([-10.0, -20.0, -30.0]) + place * normal
        dataset = image(generator.integers(0, 1000, size, dtype=np.int16), modality)
        dataset.InstanceNumber, dataset.ImageType = number + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in point]
        dataset.ImageOrientationPatient, dataset.PixelSpacing = list(orientation), [2, 1.5]
        dataset.SliceThickness = 3
        for keyword, value in elements.items():
            setattr(dataset, keyword, value[number] if isinstance(value, tuple) else value)
        found.append(dataset)
    return found


def save_all(datasets: Sequence[Dataset], folder: Path, stem: str = "slice") -> list[Path]:
    """Write data sets as `stem_01.dcm`, ..."""
    return [save(dataset, folder / f"{stem}_{number:02d}.dcm") for number, dataset in enumerate(datasets, start=1)]


def item(**elements: Any) -> Dataset:
    """A sequence item."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def sequence(*items: Dataset) -> DicomSequence:
    """A sequence of items."""
    return DicomSequence(items)


def enhanced(
    pixels: NDArray, positions: Sequence[Sequence[float]], per_frame: Sequence[dict[str, Dataset]] = (), **elements: Any
) -> Dataset:
    """An enhanced MR with one functional group a frame; `per_frame` adds macros by keyword."""
    dataset = image(pixels, "MR", SOPClassUID=EnhancedMRImageStorage, ImageType=["ORIGINAL", "PRIMARY", "T1", "NONE"])
    dataset.SharedFunctionalGroupsSequence = sequence(
        item(
            PlaneOrientationSequence=sequence(item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])),
            PixelMeasuresSequence=sequence(item(PixelSpacing=[2, 1.5], SliceThickness=3)),
        )
    )
    groups = []
    for number, point in enumerate(positions):
        group = item(PlanePositionSequence=sequence(item(ImagePositionPatient=list(point))))
        for keyword, macro in (per_frame[number] if per_frame else {}).items():
            setattr(group, keyword, sequence(macro))
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = sequence(*groups)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset
