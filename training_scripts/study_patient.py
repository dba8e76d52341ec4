"""Judge models on one real patient, beside the baselines they carry: a sanity check that chooses nothing.

    python3 training_scripts/study_patient.py IMAGE MASK BUNDLE [BUNDLE ...] --out DIR [--page PAGE.md]

IMAGE is one scan prepared as the models' training scans were (skull-stripped or not, the same contrast), MASK its
lesions.  Every step is a call of the command line, and one that has ended is not done again.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import _environment
from _study import judge, metrics_of, table

COLUMNS = (("voxel AP", "average_precision"), ("Dice", "dice"), ("best Dice (oracle)", "dice_oracle"))
"""Heading and voxel metric of the table's columns."""

SMOOTHINGS = (1.0, 1.5, 2.0)
"""Standard deviations in mm."""

PREFACE = """\
One real patient with multiple sclerosis (FLAIR, skull-stripped, 1 mm; Lesjak et al., Neuroinformatics 2017, CC-BY 4.0),
scored by models that saw simulated brains of 2 or 3 mm only. The patient chooses nothing, and one patient is no test
set: read it as a check that the maps mean something outside the simulation. Dice is at the threshold fixed on the
models' calibration normals, the best Dice is an oracle's. Baselines are those stored with the model they stand under;
smoothed intensity is the scan itself behind a Gaussian of that standard deviation.
The models are those of [heads.md](heads.md), and the starter model that ships with the module. The two seeds of
`restore` differ by more than either does from smoothed intensity: one patient does not settle which is better.

This page is written by `training_scripts/study_patient.py`."""


def main() -> int:
    """Judge what is not judged yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path, help="the patient's scan")
    parser.add_argument("mask", type=Path, help="the lesions, on the scan's grid")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="models to judge")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything the study makes")
    parser.add_argument("--page", type=Path, help="Markdown page to write the table to")
    arguments = parser.parse_args()
    _environment.run_inside(("train",))
    cohort = manifest(arguments.image, arguments.mask, arguments.out)
    rows = [smoothed(arguments.image, arguments.mask, millimetres) for millimetres in SMOOTHINGS]
    for bundle in arguments.bundles:
        judged = arguments.out / bundle.name
        judge(bundle, cohort, judged, "--split", "external")
        rows += [row(name, method, bundle.name) for name, method in metrics_of(judged)["methods"].items()]
    lines = ["# One real patient", "", *PREFACE.splitlines(), ""]
    lines += [*table(["method", *(heading for heading, _ in COLUMNS)], [line for line in rows if line]), ""]
    text = "\n".join(lines)
    print(text)
    if arguments.page:
        arguments.page.write_text(text, encoding="utf-8")
    return 0


def manifest(image: Path, mask: Path, out: Path) -> Path:
    """A cohort of the one patient, kept from all fitting by its split."""
    path = out / "cohort.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("case", "patient", "image", "label", "mask", "split"))
        writer.writerow(("patient", "patient", image.resolve(), 1, mask.resolve(), "external"))
    return path


def smoothed(image: Path, mask: Path, millimetres: float) -> list[str]:
    """The line of the scan's own intensity, smoothed: what a map must beat."""
    import numpy as np
    import SimpleITK as sitk
    from sklearn.metrics import average_precision_score, precision_recall_curve

    scan = sitk.ReadImage(str(image), sitk.sitkFloat32)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(mask))) > 0
    head = sitk.GetArrayFromImage(scan) > 0
    found = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(scan, millimetres))
    precision, recall, _ = precision_recall_curve(truth[head], found[head])
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    title = f"intensity smoothed by {millimetres:g} mm"
    return [title, f"{average_precision_score(truth[head], found[head]):.3f}", "–", f"{dice.max():.3f}"]


def row(name: str, method: dict, bundle: str) -> list[str]:
    """A line of the table; nothing for methods without a map."""
    figures = [method["voxel"][metric]["value"] for _, metric in COLUMNS]
    if None in figures:
        return []
    title = f"**{bundle}**" if method["kind"] == "model" else name
    return [title, *(f"{figure:.3f}" for figure in figures)]


if __name__ == "__main__":
    sys.exit(main())
