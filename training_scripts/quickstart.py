"""The main job on real anatomy, from nothing: cohort, model, calibration, scores, figures.

    python3 training_scripts/quickstart.py [--out quickstart_output]

Makes its own environment first.  Brains are simulated from the ICBM152 template that the nilearn package carries:
T1-like ones with a tumour to find, FLAIR-like ones with three plaques to find, and normal ones.  Both get a `zscore`
model, the FLAIR-like ones also a small autoencoder that is judged on the same held-out cases.  The work itself is in
`AnomalyTrainingLib.evaluation.showcase`.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the user may well start it with an older one
    sys.exit("The quickstart needs Python 3.11 or newer; this is {}.{}.".format(*sys.version_info[:2]))

import argparse
from pathlib import Path

import _environment

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the demonstrations and say what came out."""
    parser = argparse.ArgumentParser(
        description="Simulates brains, trains and calibrates models on normals, scores cases with and without lesions."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "quickstart_output", help="folder of the results")
    parser.add_argument("--workers", type=int, default=2, help="processes; one contrast each (default: 2)")
    arguments = parser.parse_args()
    _environment.run_inside(("train", "demo"))

    from AnomalyDetectionLib.cli.progress import Progress
    from AnomalyDetectionLib.errors import InputError
    from AnomalyTrainingLib.evaluation.showcase import demonstrate_all

    print("Simulating brains, training three models, judging them on held-out cases: about 4 minutes on two cores.")
    try:
        with Progress() as progress:
            summary = demonstrate_all(arguments.out, workers=arguments.workers, progress=progress)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; run the same command again to go on.", file=sys.stderr)
        return 130
    print(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
