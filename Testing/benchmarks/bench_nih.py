"""Time to make a manifest of NIH ChestX-ray14: 112,120 rows as published, with lists, boxes and empty image files.

    python Testing/benchmarks/bench_nih.py [--images 112120] [--limit 5.0]

The files are generated in a temporary folder first.  Timed are the reading of the tables and folders into cases, and
`slicer-anomaly cohort nih SRC --split` as a whole, in this process.  Exit code 1 if the reading takes more than the
limit in seconds of processor time: on a quiet machine that is the time it takes, and other work does not count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("AnomalyDetection", "AnomalyTraining")]

from AnomalyDetectionLib.cli.main import main as command  # noqa: E402
from AnomalyTrainingLib.cohorts.nih import FINDINGS, NO_FINDING, cases_of_nih  # noqa: E402

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
PATIENTS = 30_805
FOLDERS = 12


def write_release(folder: Path, images: int) -> None:
    """Tables and empty images of a release with about as many images a patient as the real one."""
    generator = np.random.default_rng(0)
    owners = np.sort(generator.integers(1, max(2, PATIENTS * images // 112_120), images))
    lines, names, follow_up, last = [HEADER], [], 0, 0
    for owner in owners.tolist():
        follow_up, last = (follow_up + 1 if owner == last else 0), owner
        name = f"{owner:08d}_{follow_up:03d}.png"
        said = NO_FINDING if generator.random() < 0.54 else "|".join(generator.choice(FINDINGS, 2, replace=False))
        lines.append(f"{name},{said},{follow_up},{owner},{40 + owner % 40},M,PA,2500,2048,0.168,0.168,")
        names.append(name)
    (folder / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tested = [int(name[:8]) % 4 == 0 for name in names]
    for file, wanted in (("test_list.txt", True), ("train_val_list.txt", False)):
        listed = [name for name, test in zip(names, tested, strict=True) if test is wanted]
        (folder / file).write_text("\n".join(listed) + "\n", encoding="utf-8")
    ill = [line.split(",")[0] for line in lines[1:] if NO_FINDING not in line][:880]
    boxes = [f"{name},Mass,225.08,547.02,86.78,79.19,,," for name in ill]
    (folder / "BBox_List_2017.csv").write_text(
        "\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *boxes]) + "\n", encoding="utf-8"
    )
    for number in range(FOLDERS):
        place = folder / f"images_{number + 1:03d}" / "images"
        place.mkdir(parents=True)
        for name in names[number::FOLDERS]:
            (place / name).touch()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=112_120)
    parser.add_argument("--limit", type=float, default=5.0, help="exit with 1 above so many seconds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        write_release(Path(temporary), arguments.images)
        out = Path(temporary) / "cohort.csv"
        start = time.process_time()
        cases_of_nih(temporary)
        reading = time.process_time() - start
        start, worked = time.perf_counter(), time.process_time()
        code = command(["cohort", "nih", temporary, "--split", "--out", str(out), "--progress", "none"])
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        rows = sum(1 for _ in out.open(encoding="utf-8")) - 1 if code == 0 else 0
    print(f"{rows} rows read in {reading:.2f} s of the processor (limit {arguments.limit:g} s)")
    print(f"the whole command: {worked:.2f} s of the processor, {seconds:.2f} s on the clock")
    return int(code != 0 or rows != arguments.images or reading > arguments.limit)


if __name__ == "__main__":
    sys.exit(main())
