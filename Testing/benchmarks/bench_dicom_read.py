"""Time to read a DICOM series, beside SimpleITK's series reader on the same files in the same process.

    python Testing/benchmarks/bench_dicom_read.py [FOLDER] [--repeats 7] [--limit 1.2]

Without FOLDER a series of 384 slices of 274 x 384 pixels is written to a temporary folder first.  The readers take
turns, so that both meet the same load on the machine, and the best time of each counts; the files are in the cache.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "AnomalyDetection"))

from AnomalyDetectionLib.imaging.read import read_volume

SLICES, ROWS, COLUMNS = 384, 384, 274


def write_series(folder: Path) -> None:
    """An oblique MR series with the elements that a scanner writes into its headers."""
    generator = np.random.default_rng(0)
    series, study, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    normal = np.cross([1, 0, 0], [0, 0.8, 0.6])
    for number in range(SLICES):
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, study
        dataset.FrameOfReferenceUID = frame_of_reference
        dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M"]
        dataset.SeriesDescription, dataset.Manufacturer = "benchmark", "none"
        dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = "20200101"
        dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = "120000"
        dataset.EchoTime, dataset.RepetitionTime, dataset.FlipAngle = 3.5, 2300, 9
        dataset.SliceThickness = dataset.SpacingBetweenSlices = 0.7
        dataset.InstanceNumber, dataset.SeriesNumber = number + 1, 1
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in (-90, -120, -100) + normal * 0.7 * number]
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 0.8, 0.6], [0.7, 0.7]
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = generator.integers(0, 2000, (ROWS, COLUMNS), dtype=np.int16).tobytes()
        dataset.save_as(folder / f"slice_{number:04d}.dcm", enforce_file_format=True)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(folder: Path, repeats: int) -> tuple[float, float]:
    """Best seconds of `read_volume` and of SimpleITK's reader (which is handed the sorted names)."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    if not names:
        raise SystemExit(f"{folder}: SimpleITK finds no series here; its files must lie directly in the folder.")

    def theirs() -> np.ndarray:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(names)
        return sitk.GetArrayFromImage(reader.Execute())

    def ours() -> np.ndarray:
        return read_volume(folder).array

    if not np.array_equal(ours(), theirs()) and not np.array_equal(ours(), theirs()[::-1]):
        raise SystemExit("the two readers give different voxels")
    times = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    return min(a for a, _ in times), min(b for _, b in times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="a folder with one DICOM series")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--limit", type=float, default=1.2, help="exit with 1 above this ratio")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder
        if folder is None:
            folder = Path(temporary)
            write_series(folder)
        ours, theirs = compare(folder, arguments.repeats)
    ratio = ours / theirs
    print(f"read_volume {ours:.3f} s, SimpleITK {theirs:.3f} s, ratio {ratio:.2f} (limit {arguments.limit})")
    return int(ratio > arguments.limit)


if __name__ == "__main__":
    sys.exit(main())
