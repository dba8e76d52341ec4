"""Rank the detectors of brain MRI and the baselines on phantoms of twelve anatomies.

    python3 training_scripts/study_heads.py LABEL_MAPS --plaque-shapes MASKS --out DIR [--page PAGE.md] [--only zscore]

LABEL_MAPS holds label maps head_01 ... head_12 with FreeSurfer's values, such as SynthSeg's training maps; MASKS holds
lesion masks in MNI space.  Learned models train on head_01 ... head_06, stop by head_07, are calibrated on head_08 and
head_09 and judged on head_10 ... head_12, and `zscore` on normals spoilt by artefacts.  Every step is a call of the
command line, and one that has ended is not done again.  `study_heads_folds.py` goes on from here: every anatomy out of
fold.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import _environment
from _study import anomaly, figure, judge, metrics_of, once, table

SPLITS = ("train=head_0[1-6]", "validate=head_07", "calibrate=head_08,head_09", "test=head_1*")
LESIONS = ("tumour=24", "plaques=24", "infarct=12", "haemorrhage=12")
NORMALS = 120
SIZE = (
    "options.widths=[16,32,64,128]",
    "input.spacing=[2.0,2.0,4.0]",
    "input.size=[112,96]",
    "training.epochs=10",
    "training.learning_rate=1.0e-3",
    "baselines=none",
)
"""A size that trains in three minutes on a core; the recipe's own is 1 mm, 224 x 224, 1e-4 and up to 200 epochs."""


@dataclass(frozen=True)
class Variant:
    """A recipe, and what of it is changed."""

    title: str
    changes: tuple[str, ...] = ()
    recipe: str = "autoencoder_brain"
    size: tuple[str, ...] = SIZE


VARIANTS = {
    "mse": Variant("autoencoder mse"),
    "ssim": Variant("autoencoder ssim", ("options.loss=ssim",)),
    "spatial": Variant("autoencoder spatial", ("options.bottleneck=spatial", "options.latent=8")),
    "vae": Variant("autoencoder vae", ("options.variational=true", "options.kl_warmup_epochs=5")),
    "denoising": Variant("denoising", ("training.epochs=5",), "brain_denoising"),
    "restore": Variant("restore", ("baselines=none",), "brain_restore", ()),
    "fusion": Variant(
        "fusion of restore and denoising",
        ("baselines=none", "options.members=[{models}/restore-s0,{models}/denoising-s0]"),
        "brain_fusion",
        (),
    ),
    "synthlesion": Variant("synthlesion", ("baselines=none",), "brain_synthlesion", ()),
    "features": Variant("features", ("baselines=none",), "brain_features", ()),
    "feature-autoencoder": Variant(
        "feature autoencoder",
        ("baselines=none", "input.spacing=[2.0,2.0,4.0]", "training.epochs=15"),
        "brain_feature_autoencoder",
        (),
    ),
    "unet": Variant("unet (ceiling)", ("baselines=none", "training.epochs=6"), "unet_brain", ()),
}
"""What is trained, by name; {models} stands for the folder of the bundles."""


@dataclass(frozen=True)
class Training:
    """One training of one variant."""

    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}-s{self.seed}"

    @property
    def title(self) -> str:
        return f"{VARIANTS[self.variant].title}-s{self.seed}"


ONCE = ("ssim", "spatial", "vae", "denoising", "synthlesion", "features", "feature-autoencoder", "fusion", "unet")
TRAININGS = (
    *(Training("mse", seed) for seed in (0, 1, 2)),
    *(Training("restore", seed) for seed in (0, 1)),
    *(Training(variant, 0) for variant in ONCE),
)
REPEATED = {"mse": "Autoencoder (MSE)", "restore": "`restore`"}
"""Variants trained from several seeds: the paper's, and the default."""

STATISTICS, PLAIN = "zscore", "voxel_intensity"


def main() -> int:
    """Do what is not done yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("label_maps", type=Path, help="folder with head_01.nii.gz ... head_12.nii.gz")
    parser.add_argument("--plaque-shapes", required=True, help="folder (or pattern) of lesion masks in MNI space")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything the study makes")
    parser.add_argument("--contrast", default="flair", choices=("t1", "flair", "t2"))
    parser.add_argument(
        "--only", choices=[STATISTICS], help="leave out the learned models, which take most of the time"
    )
    parser.add_argument(
        "--artefacts",
        default="full",
        choices=("quick", "full"),
        help="what `zscore` is put to (default: full)",
    )
    parser.add_argument("--page", type=Path, help="Markdown page to write the tables to")
    arguments = parser.parse_args()
    _environment.run_inside(("train", "demo", "features"))
    out = arguments.out / arguments.contrast
    trainings = () if arguments.only else TRAININGS
    study(arguments, trainings, out)
    text = page(out, arguments.contrast, trainings)
    print(text)
    if arguments.page:
        arguments.page.write_text(text, encoding="utf-8")
    return 0


def study(arguments: argparse.Namespace, trainings: Sequence[Training], out: Path) -> None:
    """All that the page is written from."""
    cohort = out / "cohort.csv"
    anomaly(
        *("cohort", "phantom", arguments.label_maps, "--stripped", "--contrast", arguments.contrast),
        *("--subjects", NORMALS, "--lesions", *LESIONS, "--plaque-shapes", arguments.plaque_shapes),
        *("--split-anatomies", *SPLITS, "--supervised", "--out", cohort),
    )
    for training in trainings:
        train_and_judge(training, cohort, out)
    once(out / "models" / STATISTICS, out / "runs" / STATISTICS, "train", "zscore_brain", "--cohort", cohort)
    judge_heads(out / "models" / STATISTICS, cohort, out / "judged" / STATISTICS, "--artefacts", arguments.artefacts)
    judged = [out / "judged" / name for name in (*(t.name for t in trainings), STATISTICS)]
    if len(judged) > 1 and not (out / "compared" / "comparison.json").exists():
        anomaly("compare", *judged, "--out", out / "compared")


def train_and_judge(training: Training, cohort: Path, out: Path) -> None:
    """The bundle of one training and its evaluation, the baselines beside the first only: they are the same for all."""
    bundle = out / "models" / training.name
    variant = VARIANTS[training.variant]
    settings = (*variant.size, *variant.changes, f"name=heads-{training.variant}")
    sets = [word for setting in settings for word in ("--set", setting.format(models=bundle.parent))]
    once(
        bundle,
        out / "runs" / training.name,
        *("train", variant.recipe, "--cohort", cohort, "--seed", training.seed, *sets),
    )
    alone = () if training == TRAININGS[0] else ("--no-baselines",)
    judge_heads(bundle, cohort, out / "judged" / training.name, *alone)


def judge_heads(model: Path, cohort: Path, out: Path, *options: object) -> None:
    """Evaluate on the held-out anatomies; intervals draw whole anatomies."""
    judge(model, cohort, out, "--cluster", "anatomy", *options)


INTRODUCTION = """\
Simulated, skull-stripped brains of 2 mm, made from the label maps of twelve real people (SynthSeg's training maps): ten
normals, two tumours, two brains with plaques of real shape, an infarct and a haemorrhage of each. The figures rank
methods; they say nothing about patients. Plaques are brighter here than in the one real patient that was looked at."""

LEARNED = """\
Learned models trained on anatomies 1 to 6, chose their epoch on 7 and were calibrated on 8 and 9 (20 normals). The
autoencoders and `denoising` are small: slices of 112 x 96 pixels of 2 mm, 4 mm apart, a learning rate of 0.001, 10
epochs (three minutes of one core each) and 5 (ten minutes); that is far below what the recipes prescribe. `restore` is
the recipe `brain_restore` as it is, forty minutes of one busy core. That its score is the probability that a voxel was
altered, and not the change that restores it, was chosen on lesions of anatomies 7 to 9 (8 and 9 calibrate it); with the
former score anatomies 10 to 12 had been judged before (AUROC 0.94, Dice 0.22). `features` and `synthlesion` are their
recipes as they are; the feature autoencoder takes slices 4 mm apart and 15 epochs. `unet` is no detector of anomalies
but shows what masks are good for: it was shown the lesions of anatomies 1 to 6 (6 epochs, fourteen minutes), so it is a
ceiling for so short a training only."""

FITTED = "`zscore` and the baselines were fitted to anatomies 1 to 6 and calibrated on 8 and 9 (20 normals)."

READING = """\
Dice, recall and false findings are at the threshold fixed on the calibration normals; the best Dice is an oracle's.
Intervals (95 %) draw whole anatomies: with three of them they are coarse, and no difference can be shown; where all
three give exactly 0 or 1 the interval is that of three answers of yes or no (0.29 to 1, or 0 to 0.71). Whether `zscore`
or plain intensity ranks voxels better depends on the anatomies that are held out.

This page is written by `training_scripts/study_heads.py`."""

OUT_OF_FOLD_ELSEWHERE = ["Every anatomy out of fold: [heads_out_of_fold.md](heads_out_of_fold.md).", ""]

COLUMNS = (
    ("volume AUROC", "volume", "auroc"),
    ("voxel AP", "voxel", "average_precision"),
    ("Dice", "voxel", "dice"),
    ("best Dice (oracle)", "voxel", "dice_oracle"),
    ("lesion recall", "lesion", "recall"),
    ("false findings per normal", "lesion", "false_findings_per_normal"),
)
"""Heading, level and metric of the tables' columns."""

HEADINGS = [heading for heading, _, _ in COLUMNS]


def page(out: Path, contrast: str, trainings: Sequence[Training]) -> str:
    """The study's tables in Markdown."""
    judged = {t: metrics_of(out / "judged" / t.name) for t in trainings}
    zscore = metrics_of(out / "judged" / STATISTICS)
    held_out = [row(training.title, model_of(found)) for training, found in judged.items()]
    held_out += [row(name, method) for name, method in zscore["methods"].items()]
    lines = [
        f"# Heads phantom, {contrast.upper()}-like",
        "",
        *INTRODUCTION.splitlines(),
        "",
        *(LEARNED if trainings else FITTED).splitlines(),
        *READING.splitlines(),
        "",
        f"## Held-out anatomies 10 to 12: {counts(zscore)}",
        "",
        *table(["method", *HEADINGS], held_out),
        "",
        *by_kind(judged, zscore, kinds_of(out / "cohort.csv")),
        *over_seeds(judged),
        *OUT_OF_FOLD_ELSEWHERE,
        *artefacts(zscore),
    ]
    return "\n".join(lines)


def kinds_of(cohort: Path) -> dict[str, str]:
    """Kind of lesion of every abnormal case."""
    with cohort.open(encoding="utf-8", newline="") as stream:
        return {row["case"]: row["lesion"] for row in csv.DictReader(stream) if row["lesion"]}


def by_kind(judged: Mapping[Training, dict], zscore: dict, kinds: Mapping[str, str]) -> list[str]:
    """Mean Dice at the fixed threshold by kind of lesion, and in which anatomies it is above the baseline's."""
    rows = [(training.title, dice_of(found, model_name(found))) for training, found in judged.items()]
    rows += [(name, dice_of(zscore, name)) for name in (STATISTICS, PLAIN)]
    names = list(dict.fromkeys(kinds.values()))
    plain = dict(rows)[PLAIN]
    cells = []
    for title, dice in rows:
        means = [mean_of([dice[case][0] for case in dice if kinds[case] == kind]) for kind in names]
        gained = [
            mean_of([dice[case][0] - plain[case][0] for case in dice if dice[case][1] == anatomy])
            for anatomy in sorted({anatomy for _, anatomy in dice.values()})
        ]
        cells.append([title, *(f"{mean:.2f}" for mean in means), ", ".join(f"{gain:+.2f}" for gain in gained)])
    return [
        "## Mean Dice at the fixed threshold, by kind of lesion",
        "",
        f"The last column is the mean difference from `{PLAIN}` in each of the held-out anatomies.",
        "",
        *table(["method", *names, f"above {PLAIN}"], cells),
        "",
    ]


def dice_of(metrics: dict, method: str) -> dict[str, tuple[float, str]]:
    """Dice and anatomy of every case with a lesion."""
    cases = metrics["cases"][method]
    return {case["case"]: (case["dice"], case["cluster"]) for case in cases if case["dice"] is not None}


def mean_of(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def artefacts(metrics: dict) -> list[str]:
    """What artefacts do to `zscore` on the held-out normals: false findings by severity, and how many it gives away."""
    rows = [row for row in metrics["artefacts"] if row["method"] == STATISTICS]
    found = {(row["artefact"], row["severity"]): row for row in rows}
    severities = sorted({row["severity"] for row in rows} - {0})
    unspoilt = found["none", 0]
    cells = [
        [name, *(spoilt_figure(found.get((name, severity))) for severity in severities)]
        for name in dict.fromkeys(row["artefact"] for row in rows if row["severity"])
    ]
    return [
        f"## What artefacts do to `zscore`: {unspoilt['cases']} held-out normals, spoilt",
        "",
        "False findings per normal, and in brackets the share of normals that are marked as of poor quality. "
        f"Unspoilt: {spoilt_figure(unspoilt)}. Severity 1 is hardly seen, 5 is not for diagnosis.",
        "",
        *table(["artefact", *(f"severity {severity}" for severity in severities)], cells),
        "",
    ]


def spoilt_figure(found: dict | None) -> str:
    """'0.43 (10 %)'."""
    if found is None:
        return "–"
    return f"{found['false_findings_per_case']:.2f} ({100 * found['share_poor_quality']:.0f} %)"


def model_name(metrics: dict) -> str:
    return next(name for name, method in metrics["methods"].items() if method["kind"] == "model")


def model_of(metrics: dict) -> dict:
    return metrics["methods"][model_name(metrics)]


def counts(metrics: dict) -> str:
    cohort = metrics["cohort"]
    return f"{cohort['normal']} normal and {cohort['abnormal']} abnormal cases"


def row(name: str, method: dict) -> list[str]:
    return [name, *(figure(method[level][metric]) for _, level, metric in COLUMNS)]


def over_seeds(judged: Mapping[Training, dict]) -> list[str]:
    """A paragraph on each variant trained from several seeds."""
    import numpy as np

    lines = []
    for variant, title in REPEATED.items():
        methods = [model_of(found) for training, found in judged.items() if training.variant == variant]
        parts = []
        for heading, level, metric in COLUMNS:
            values = [method[level][metric]["value"] for method in methods]
            if len(values) > 1 and None not in values:
                parts.append(f"{heading} {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
        if parts:
            lines += [f"{title} over {len(methods)} seeds, mean ± SD: {', '.join(parts)}.", ""]
    return lines


if __name__ == "__main__":
    sys.exit(main())
