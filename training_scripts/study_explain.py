"""Judge how well explanations of a classifier point at what radiologists have boxed, and whether they pass sanity.

    python3 training_scripts/study_explain.py CROSSVAL COHORT.csv --out DIR [--box-grid 1024] [--page PAGE.md]

CROSSVAL is a cross-validation of a classifier by the command line (`study_chest.py` leaves one in DIR/classifier);
COHORT.csv has the column `boxes`, as `slicer-anomaly cohort nih` writes it.  Each boxed image is explained by the fold
that has not seen it.  Maps that have been made are not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import _environment
from _study import figure, table

METHODS = ("grad-cam", "grad-cam++", "saliency", "integrated-gradients", "occlusion")
BY_PIXEL = ("saliency", "integrated-gradients", "mean image")
"""Maps that are smoothed for a row of their own: their peak is that of a single pixel."""
SMOOTHED = 1 / 32
"""Standard deviation of that, as a share of the image's side (16 of 512 pixels); set before anything was judged."""

CHECKED = ("grad-cam", "grad-cam++", "saliency", "integrated-gradients")
"""Methods of the sanity check; occlusion's maps would take an hour."""
STAGES = 6


def main() -> int:
    """Do what is not done yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crossval", type=Path, help="folder of a classifier's cross-validation")
    parser.add_argument("cohort", type=Path, help="cohort with the column boxes")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything the study makes")
    parser.add_argument("--box-grid", type=float, default=1024, help="pixels of the side in which boxes are counted")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="all, or some of them")
    parser.add_argument("--page", type=Path, help="Markdown page to write the tables to")
    arguments = parser.parse_args()
    _environment.run_inside(("train", "features", "explain"))
    cases = list(boxed_cases(arguments.crossval, arguments.cohort))
    found = {
        **explain(cases, arguments.out / "maps", arguments.box_grid, arguments.methods),
        "randomised": check_sanity(cases, arguments.out / "sanity.json"),
    }
    (arguments.out / "explain.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = page(found)
    print(text)
    if arguments.page:
        arguments.page.write_text(text, encoding="utf-8")
    return 0


def boxed_cases(crossval: Path, cohort: Path) -> Iterator[tuple[Path, Any]]:
    """The boxed cases with the model of the fold that tests on them."""
    from AnomalyTrainingLib.cohorts.manifest import read_manifest

    boxes = {case.case: case.covariates["boxes"] for case in read_manifest(cohort) if "boxes" in case.covariates}
    for fold in sorted((crossval / "folds").iterdir()):
        for case in read_manifest(fold / "cohort.csv").of(split="test"):
            if case.case in boxes:
                yield fold / "run" / "model", replace(case, covariates={**case.covariates, "boxes": boxes[case.case]})


def explain(cases: Sequence[tuple[Path, Any]], folder: Path, grid: float, methods: Sequence[str]) -> dict[str, Any]:
    """The maps of the methods and of all that knows nothing of the image, against the boxes."""
    from AnomalyTrainingLib.evaluation.pointing import Pointing, boxes_mask, point

    made = maps_of(cases, folder, methods)
    patients = [case.patient for _, case in cases]
    masks = [
        boxes_mask(case.covariates["boxes"], one.shape, grid)
        for (_, case), one in zip(cases, made["mean image"], strict=True)
    ]
    rows = {**with_smoothed(made), **priors(made, methods, masks, patients)}
    pointed = {name: [point(*pair) for pair in zip(maps, masks, strict=True)] for name, maps in rows.items()}
    return {
        "patients": len(set(patients)),
        "called": called(folder, methods[0], cases),
        "boxed": sum(one.boxed for one in pointed["centre"]) / len(cases),
        "methods": {name: Pointing.of(one, patients).to_json() for name, one in pointed.items()},
        "against": {
            name: {prior: against(pointed[name], pointed[prior]) for prior in ("other people's boxes", others(name))}
            for name in methods
        },
    }


def others(method: str) -> str:
    """The name of the prior that the maps of other patients make."""
    return f"{method}: other people's maps"


def maps_of(cases: Sequence[tuple[Path, Any]], folder: Path, methods: Sequence[str]) -> dict[str, list[Any]]:
    """Maps (rows, columns) of every case by each method, and how far each image is from the mean of normals."""
    import numpy as np

    from AnomalyDetectionLib.models.bundle import load_bundle
    from AnomalyDetectionLib.scoring.explaining import Explanation
    from AnomalyDetectionLib.scoring.raw import Preparations
    from AnomalyDetectionLib.scoring.scorer import Scorer
    from AnomalyTrainingLib.cohorts.manifest import load_case_volume

    folder.mkdir(parents=True, exist_ok=True)
    for bundle, group in itertools.groupby(cases, lambda pair: pair[0]):
        model = load_bundle(bundle)
        for _, case in group:
            preparations = Preparations(load_case_volume(case))
            path = folder / f"{case.case}.npz"
            if not path.exists():
                np.savez_compressed(path, away=from_normals(model, preparations))
            for method in methods:
                path = folder / f"{case.case} {method}.npz"
                if path.exists():
                    continue
                result = Scorer(model).score_prepared(preparations, explain=Explanation(method))
                assert result.attribution is not None
                np.savez_compressed(path, found=result.attribution.map.array[0], abnormal=bool(result.abnormal))
                print(f"{case.case}: {method}", flush=True)
    made = {method: [np.load(folder / f"{case.case} {method}.npz")["found"] for _, case in cases] for method in methods}
    return {**made, "mean image": [np.load(folder / f"{case.case}.npz")["away"] for _, case in cases]}


def from_normals(model: Any, preparations: Any) -> Any:
    """How far an image is from the mean of the normals that the model was trained on, (rows, columns)."""
    import numpy as np

    prepared = preparations.ready(model.detector.spec, model.template).prepared
    away = np.abs(prepared.batch.image[:, 0].numpy() - model.template.image)
    return prepared.to_input(np.where(prepared.batch.foreground[:, 0].numpy(), away, 0))[0]


def called(folder: Path, method: str, cases: Sequence[tuple[Path, Any]]) -> int:
    """How many of the cases the models call abnormal."""
    import numpy as np

    return sum(int(np.load(folder / f"{case.case} {method}.npz")["abnormal"]) for _, case in cases)


def with_smoothed(made: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The maps, and those that are made pixel by pixel smoothed as well."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    rows = dict(made)
    for name in filter(made.__contains__, BY_PIXEL):
        rows[f"{name}, smoothed"] = [
            gaussian_filter(np.clip(one, 0, None), SMOOTHED * max(one.shape)) for one in made[name]
        ]
    return rows


def priors(
    made: Mapping[str, list[Any]], methods: Sequence[str], masks: Sequence[Any], patients: Sequence[str]
) -> dict[str, list[Any]]:
    """What points without a look at the image: its middle, other patients' boxes, and other patients' maps."""
    from AnomalyTrainingLib.evaluation.pointing import centre_prior, mean_of_others

    def of_others(maps: Sequence[Any]) -> list[Any]:
        return [mean_of_others(maps, patients, number) for number in range(len(maps))]

    boxes = [mask.astype(float) for mask in masks]
    return {
        "centre": [centre_prior(mask.shape) for mask in masks],
        "other people's boxes": of_others(boxes),
        **{others(method): of_others(made[method]) for method in methods},
    }


def against(own: Sequence[Any], prior: Sequence[Any]) -> dict[str, Any]:
    """Images that the one hits and the other does not, and the exact p-value of that (sign test, two-sided)."""
    from scipy.stats import binomtest

    more = sum(one.hit and not other.hit for one, other in zip(own, prior, strict=True))
    fewer = sum(other.hit and not one.hit for one, other in zip(own, prior, strict=True))
    p = binomtest(more, more + fewer).pvalue if more + fewer else 1.0
    return {"more": more, "fewer": fewer, "p": float(p)}


def check_sanity(cases: Sequence[tuple[Path, Any]], path: Path) -> dict[str, Any]:
    """How alike maps stay while the model forgets: mean rank correlation and SSIM, one image a fold."""
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    from AnomalyDetectionLib.models.bundle import load_bundle
    from AnomalyDetectionLib.scoring.explaining import Explanation
    from AnomalyTrainingLib.cohorts.manifest import load_case_volume
    from AnomalyTrainingLib.evaluation.randomisation import randomise

    first = dict(reversed(cases))  # the first case of each fold
    found: dict[str, Any] = {"images": len(first), "methods": {}}
    for method in CHECKED:
        print(f"sanity check: {method}", flush=True)
        folds = [
            randomise(load_bundle(bundle), [load_case_volume(case)], Explanation(method), stages=STAGES, seed=number)
            for number, (bundle, case) in enumerate(first.items())
        ]
        found["methods"][method] = [stage_of(stages) for stages in zip(*folds, strict=True)]
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def stage_of(stages: Sequence[Any]) -> dict[str, Any]:
    """One stage over the folds."""
    from AnomalyTrainingLib.evaluation.randomisation import mean_likeness

    mean = mean_likeness([one for stage in stages for one in stage.likeness])
    return {"down_to": stages[0].down_to, "share": stages[0].share, "spearman": mean.spearman, "ssim": mean.ssim}


INTRODUCTION = """\
Frontal chest radiographs (NIH ChestX-ray14; free use, acknowledging the NIH Clinical Center) that radiologists have
boxed. Each is explained by the fold of the `classifier` of [chest.md](chest.md) that has not seen its patient; {called}
of the {images} are called abnormal. The classifier learns from one label an image and was never shown a box.

**Attribution, not segmentation**: a map shows what moved the model. Nothing of the explanations was chosen on
these images.

- *Hits*: the map's highest pixel lies in a box (pointing game, no tolerance); exact intervals, in which the images of
  one patient count as fewer. A random pixel hits {boxed:.2f}.
- *IoU*: boxes against as many of the map's highest pixels as the boxes have; intervals draw patients.
- *IoU ≥ 0.25*: images that reach it. *Inside*: share of the map's positive values in the boxes.
- *Smoothed*: by a Gaussian of 1/32 of the image's side, because those maps are made pixel by pixel.

This page is written by `training_scripts/study_explain.py`."""

HEADS = ("map", "hits", "of", "hit rate", "IoU", "IoU ≥ 0.25", "inside")
SANITY = """\
Sanity check (cascading randomisation, Adebayo et al. 2018): from the answer down to the image the weights are shuffled
within each tensor, and each time the map is compared with the trained model's: rank correlation / SSIM, mean of
{images} images (one a fold). 1 is the same map; a method whose maps stay as they were does not show what was learnt."""


def page(found: Mapping[str, Any]) -> str:
    """The study's tables in Markdown."""
    methods = found["methods"]
    images = next(iter(methods.values()))["images"]
    introduction = INTRODUCTION.format(called=found["called"], images=images, boxed=found["boxed"])
    own = [name for name in methods if is_of_model(name)]
    missing = [name for name in METHODS if name not in methods]
    return "\n".join(
        [
            "# Explanations of the chest classifier",
            "",
            *introduction.splitlines(),
            "",
            f"## {images} boxed images of {found['patients']} patients",
            "",
            *table(HEADS, [row(name, methods[name]) for name in own]),
            "",
            *([f"Not judged here: {', '.join(missing)} (`--methods` adds it).", ""] if missing else []),
            "What points without the model, or without a look at the image:",
            "",
            *table(HEADS, [row(name, methods[name]) for name in methods if name not in own]),
            "",
            *verdict(found),
            "",
            "## Do the maps depend on what was learnt?",
            "",
            *SANITY.format(images=found["randomised"]["images"]).splitlines(),
            "",
            *sanity_table(found["randomised"]["methods"]),
            "",
        ]
    )


def is_of_model(name: str) -> bool:
    """Whether a row is of a map that explains the image itself."""
    return name.partition(",")[0] in METHODS


def row(name: str, one: Mapping[str, Any]) -> list[str]:
    return [
        name,
        str(one["hits"]),
        str(one["images"]),
        figure(one["hit_rate"]),
        figure(one["iou"]),
        f"{one['covered']}: {figure(one['covered_rate'])}",
        figure(one["inside"]),
    ]


def verdict(found: Mapping[str, Any]) -> list[str]:
    """In words, method by method, whether it hits more than what does not look at the image."""
    hits = {name: one["hits"] for name, one in found["methods"].items()}
    own = max((name for name in hits if is_of_model(name)), key=hits.__getitem__)
    prior = max((name for name in hits if not is_of_model(name)), key=hits.__getitem__)
    summary = f"Of the explanations {own} hits most often ({hits[own]} times); of the maps that never look at the model"
    summary += f" {prior} ({hits[prior]} times)."
    if hits[own] <= hits[prior]:
        summary += " So the maps do not show that the model looks where the radiologists do."
    lines = [summary, "", "Hits against two of these, image by image (exact sign test):", ""]
    for method, priors in found["against"].items():
        said = []
        for prior, one in priors.items():
            name = "other people's maps" if prior == others(method) else prior
            clear = "more" if one["more"] > one["fewer"] else "fewer"
            shown = clear if one["p"] < 0.05 else "no difference shown"
            said.append(f"{name} {one['more']} more, {one['fewer']} fewer (p = {one['p']:.2g}: {shown})")
        lines.append(f"- {method}: {'; '.join(said)}.")
    return lines


def sanity_table(methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """A row a stage, a column a method."""
    stages = zip(*methods.values(), strict=True)
    rows = [
        [
            f"{columns[0]['down_to']} ({columns[0]['share']:.0%})",
            *(f"{one['spearman']:.2f} / {one['ssim']:.2f}" for one in columns),
        ]
        for columns in stages
    ]
    return table(("random down to (share of weights)", *methods), rows)


if __name__ == "__main__":
    sys.exit(main())
