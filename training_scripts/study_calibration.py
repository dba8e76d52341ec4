"""Check on hundreds of simulated normals that the p-values of a model mean what they say, and that the check can fail.

    python3 training_scripts/study_calibration.py LABEL_MAPS --out DIR [--page PAGE.md] [--model BUNDLE ...]

LABEL_MAPS holds label maps of twelve heads, head_01 ... head_12, with FreeSurfer's values, such as SynthSeg's training
maps.  Of normals without a lesion, as many of every anatomy, some train `zscore`, some calibrate it, and the rest (more
than 200) are held out; all of that once for each of SEEDS.  Of the held-out normals a share of alpha must have
p <= alpha; when they come from a scanner with another transfer curve (the artefact `gamma`) the same check must fail.
Beside it stands what comes out when the held-out normals have other anatomies than those calibrated on.

Other bundles (--model) are calibrated on the same normals and checked in the same way, with the first seed only; those
of --model-in-brief on the scanner they were calibrated on only, which is the check that must hold.  Every step is a
call of the command line, but for the gamma curve, and one that has ended is not done again.  The exit code is 1 where
the p-values of a model do not hold, or hold on the other scanner too.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import _environment
from _study import anomaly, judge, metrics_of, once, table

ANATOMIES = 12
PER_ANATOMY = {"train": 2, "calibrate": 10, "test": 17}
"""Normals of each anatomy by split."""

SEEDS = (1, 2)
"""Others than the heads study's, so that its models know none of these normals."""

KNOWN_ANATOMIES = 9
"""For the check on other anatomies: those to train and calibrate on; the others are held out."""

SEVERITY, GAMMA_SEED = 5, 0
"""Of the artefact `gamma`: with this seed the exponent is 1.15 to the power of -5, a half, for all images.  That makes
them look more unusual; the inverse makes p-values too large, which is on the safe side and no danger."""

NOMINAL, LOWEST, HIGHEST = 0.1, 0.05, 0.15
"""The rate that the verdict goes by, and what may be realised of it."""

Row = dict[str, str]

Judged = Mapping[str, dict]
"""metrics.json of every check of one model on the normals of one seed."""


@dataclass(frozen=True)
class Check:
    """One set of held-out normals.

    Attributes
    ----------
    others
        Whether they have other anatomies than the normals that the model was trained and calibrated on.
    holds
        Whether the p-values should hold on them; None where that is the finding.
    """

    name: str
    manifest: str
    described: str
    holds: bool | None
    others: bool = False


CHECKS = (
    Check("same", "population.csv", "same anatomies, same scanner", True),
    Check("shifted", "shifted.csv", "same anatomies, another transfer curve (exponent 0.5)", False),
    Check("others", "others.csv", f"anatomies {KNOWN_ANATOMIES + 1} to {ANATOMIES}, same scanner", None, others=True),
)


def main() -> int:
    """Do what is not done yet, then write the page; 1 where a model fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("label_maps", type=Path, help="folder with head_01.nii.gz ... head_12.nii.gz")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything the study makes")
    parser.add_argument("--contrast", default="flair", choices=("t1", "flair", "t2"))
    parser.add_argument("--model", type=Path, nargs="+", default=[], help="further bundles to check, of that contrast")
    parser.add_argument(
        "--model-in-brief", type=Path, nargs="+", default=[], help="likewise, on the same scanner and anatomies only"
    )
    parser.add_argument("--page", type=Path, help="Markdown page to write the tables to")
    arguments = parser.parse_args()
    _environment.run_inside(("train", "demo"))
    out = arguments.out / arguments.contrast
    bundles = [*arguments.model, *arguments.model_in_brief]
    names = ["zscore", *(bundle.resolve().name for bundle in bundles)]
    if len(set(names)) < len(names):
        parser.error(f"the bundles need names of their own: {', '.join(names)}")
    judged: dict[str, list[Judged]] = {name: [] for name in names}
    brief = {bundle.resolve().name for bundle in arguments.model_in_brief}
    for seed in SEEDS:
        place = out / f"seed-{seed}"
        make_cohorts(arguments.label_maps, arguments.contrast, seed, place)
        further = dict(zip(names[1:], bundles, strict=True)) if seed == SEEDS[0] else {}
        for others in (False, True):
            train_zscore(place, others)
            for name, bundle in further.items():
                if not (others and name in brief):
                    calibrate(bundle, name, place, others)
        for name in ("zscore", *further):
            judged[name].append(judge_model(name, place, CHECKS[:1] if name in brief else CHECKS))
    text = page(judged, arguments.contrast)
    print(text)
    if arguments.page:
        arguments.page.write_text(text, encoding="utf-8")
    return 0 if all(as_it_should(found) for found in judged.values()) else 1


# -- the cohorts


def make_cohorts(label_maps: Path, contrast: str, seed: int, out: Path) -> None:
    """The normals, and the manifests that say what each is for."""
    subjects = ANATOMIES * sum(PER_ANATOMY.values())
    made = out / "cohort.csv"
    anomaly(
        *("cohort", "phantom", label_maps, "--stripped", "--contrast", contrast, "--seed", seed),
        *("--subjects", subjects, "--out", made),
    )
    rows = [named_apart(row) for row in read(made)]
    anatomies = sorted({row["anatomy"] for row in rows})
    if len(anatomies) != ANATOMIES:
        sys.exit(f"{label_maps}: the study needs {ANATOMIES} label maps, and there are {len(anatomies)}.")
    population = [{**row, "split": split_of(number)} for number, row in enumerate(rows)]
    known = set(anatomies[:KNOWN_ANATOMIES])
    write(out / "population.csv", population)
    write(out / "others.csv", [of_other_anatomies(row, row["anatomy"] in known) for row in population])
    write(out / "shifted.csv", [shifted(row, out) for row in population if row["split"] == "test"])
    for name in ("population", "others"):
        normals = [row for row in read(out / f"{name}.csv") if row["split"] == "calibrate"]
        write(out / f"{name}_calibrate.csv", normals)


def named_apart(row: Row) -> Row:
    """A row whose patient is none of another cohort's: a model may have been trained on a `sub-0001` too."""
    return {**row, "case": f"calibration-{row['case']}", "patient": f"calibration-{row['patient']}"}


def split_of(number: int) -> str:
    """Of the normal with that place; every run of as many as there are anatomies has one of each."""
    turn = number // ANATOMIES
    train, calibrate = PER_ANATOMY["train"], PER_ANATOMY["calibrate"]
    return "train" if turn < train else "calibrate" if turn < train + calibrate else "test"


def of_other_anatomies(row: Row, known: bool) -> Row:
    """A row of the check on other anatomies: all normals of these are held out, and no others."""
    return {**row, "split": "test" if not known else "" if row["split"] == "test" else row["split"]}


def shifted(row: Row, out: Path) -> Row:
    """The row of an image with another transfer curve, which is made unless it is there."""
    from AnomalyDetectionLib.imaging.read import read_volume
    from AnomalyDetectionLib.imaging.write import write_volume
    from AnomalyTrainingLib.synthesis.artefacts import degrade
    from AnomalyTrainingLib.synthesis.cohort import SETTINGS

    source = out / row["image"]
    copy = out / "shifted" / source.name
    copy.parent.mkdir(exist_ok=True)
    shutil.copyfile(source.parent / SETTINGS, copy.parent / SETTINGS)  # by which reports tell that it is simulated
    if not copy.exists():
        write_volume(degrade(read_volume(source), "gamma", SEVERITY, seed=GAMMA_SEED), copy)
    return {**row, "image": str(copy.relative_to(out)), "case": f"{row['case']}-shifted"}


def read(manifest: Path) -> list[Row]:
    with manifest.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write(manifest: Path, rows: Sequence[Row]) -> None:
    with manifest.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# -- the models and what becomes of them


def train_zscore(out: Path, others: bool) -> None:
    """`zscore`, fitted to and calibrated on normals of all anatomies or of the known ones."""
    cohort = out / ("others.csv" if others else "population.csv")
    settings = ("--set", "calibration.method=split", "--set", "baselines=none")
    bundle = bundle_of("zscore", out, others)
    once(bundle, out / "runs" / bundle.name, "train", "zscore_brain", "--cohort", cohort, *settings)


def calibrate(bundle: Path, name: str, out: Path, others: bool) -> None:
    """A given bundle, calibrated on the same normals."""
    cohort = out / ("others_calibrate.csv" if others else "population_calibrate.csv")
    target = bundle_of(name, out, others)
    if not target.exists():
        anomaly("calibrate", bundle, "--cohort", cohort, "--out", target)


def bundle_of(name: str, out: Path, others: bool) -> Path:
    return out / "models" / (f"{name}-others" if others else name)


def judge_model(name: str, out: Path, checks: Sequence[Check]) -> Judged:
    found = {}
    for check in checks:
        place = out / "judged" / f"{name}-{check.name}"
        judge(bundle_of(name, out, check.others), out / check.manifest, place, "--no-baselines")
        found[check.name] = metrics_of(place)
    return found


# -- the page


INTRODUCTION = """\
Simulated, skull-stripped normal brains of 2 mm, made from the label maps of twelve real people (SynthSeg's training
maps). A model is calibrated on {calibrate} normals, ten of each anatomy, and its p-values are checked on held-out ones:
of these a share of alpha should have p ≤ alpha. In brackets stand exact 95 % intervals. "Agree" means that no rate lies
in either 2.5 % tail of what exact p-values with so many calibration normals realise (beta-binomial).

p-values are said to hold where those of every seed agree and {lowest:.0f} to {highest:.0f} % of the normals have
p ≤ {nominal:g} (mean over the seeds, since one set of calibration normals is as much a matter of chance as the held-out
ones). They must hold on the same scanner, and must not on the same normals as a scanner with another transfer curve
(signal turned into grey otherwise) would show them. Too small means false alarms among normals; too large errs on the
safe side. The last row is a finding: there the model is trained and calibrated on anatomies 1 to 9 only and meets
normals of three people it does not know.

This page is written by `training_scripts/study_calibration.py`."""

RATES = (0.05, 0.1, 0.2)


def page(judged: Mapping[str, Sequence[Judged]], contrast: str) -> str:
    """The study's tables in Markdown."""
    numbers = {"calibrate": ANATOMIES * PER_ANATOMY["calibrate"], "nominal": NOMINAL}
    introduction = INTRODUCTION.format(lowest=100 * LOWEST, highest=100 * HIGHEST, **numbers)
    lines = [f"# Calibration on simulated normals, {contrast.upper()}-like", "", *introduction.splitlines(), ""]
    headings = ["held-out normals", "seed", "number", "calibrated on", *(f"p ≤ {r:g}" for r in RATES), "p-values"]
    for name, found in judged.items():
        rows = [
            row(check, seed, one[check.name])
            for check in CHECKS
            for seed, one in zip(SEEDS, found, strict=False)
            if check.name in one
        ]
        lines += [f"## {name}", "", *table(headings, rows), "", verdict(found), ""]
    return "\n".join(lines)


def row(check: Check, seed: int, metrics: dict) -> list[str]:
    calibration = metrics["calibration"]
    said = {"agrees": "agree", "cannot tell": "cannot be judged"}
    verdict = said.get(calibration["verdict"], f"are {calibration['verdict']}")
    rates = [share(rate_of(metrics, nominal)["realised"]) for nominal in RATES]
    return [check.described, str(seed), str(calibration["normals"]), str(calibration["calibration_n"]), *rates, verdict]


def rate_of(metrics: dict, nominal: float) -> dict:
    return next(rate for rate in metrics["calibration"]["rates"] if rate["nominal"] == nominal)


def share(figure: dict) -> str:
    """'9.3 % (5.7 to 14.2)'."""
    value, low, high = (100 * figure[key] for key in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def mean_rate(found: Sequence[Judged], check: str) -> float:
    """The realised share at the nominal rate, mean over the seeds."""
    realised = [rate_of(one[check], NOMINAL)["realised"]["value"] for one in found]
    return sum(realised) / len(realised)


def holds(found: Sequence[Judged], check: str) -> bool:
    """Whether the p-values hold on a set of normals: no seed's check refutes them, and the nominal rate is met."""
    agree = all(one[check]["calibration"]["verdict"] == "agrees" for one in found)
    return agree and LOWEST <= mean_rate(found, check) <= HIGHEST


def as_it_should(found: Sequence[Judged]) -> bool:
    """Whether every check that was made and has a known answer has it."""
    known = [check for check in CHECKS if check.holds is not None and check.name in found[0]]
    return all(holds(found, check.name) == check.holds for check in known)


def verdict(found: Sequence[Judged]) -> str:
    """The checks in a sentence each."""
    said: Callable[[str], str] = lambda name: (  # noqa: E731
        f"{'hold' if holds(found, name) else 'do not hold'} ({100 * mean_rate(found, name):.1f} %)"
    )
    same = f"On the scanner it was calibrated on the p-values {said('same')}"
    if "shifted" not in found[0]:
        return f"{same}."
    right = "." if as_it_should(found) else ": not as it should be."
    others = f"On people of other anatomies than those calibrated on they {said('others')}."
    return f"{same}, on the other one they {said('shifted')}{right} {others}"


if __name__ == "__main__":
    sys.exit(main())
