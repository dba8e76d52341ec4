"""Make the starter models that ship with the Slicer module, their catalogue and the sample image.

    python3 training_scripts/make_starter_model.py [--work DIR]

The work itself is in `AnomalyTrainingLib.evaluation.starter`.  The same software on the same machine makes the same
files again; it takes about 6 minutes of one core.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the user may well start it with an older one
    sys.exit("Making the starter models needs Python 3.11 or newer; this is {}.{}.".format(*sys.version_info[:2]))

import argparse
from pathlib import Path

import _environment

ROOT = Path(__file__).resolve().parent.parent
RESOURCES = ROOT / "AnomalyDetection" / "Resources"


def main() -> int:
    """Make them and print their figures."""
    parser = argparse.ArgumentParser(description="Makes the starter models from simulated brains and measures them.")
    parser.add_argument("--work", type=Path, default=ROOT / "starter_work", help="folder of cohorts and runs")
    parser.add_argument("--models", type=Path, default=RESOURCES / "Models", help="folder of the models")
    parser.add_argument("--sample", type=Path, default=RESOURCES / "SampleData", help="folder of the sample image")
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate (default: 2)")
    arguments = parser.parse_args()
    _environment.run_inside(("train", "demo"))

    from AnomalyDetectionLib.cli.progress import Progress
    from AnomalyDetectionLib.errors import InputError
    from AnomalyTrainingLib.evaluation.starter import make_starters

    try:
        with Progress(by_stage=True) as progress:
            models = make_starters(
                arguments.models, arguments.sample, arguments.work, workers=arguments.workers, progress=progress
            )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for model in models:
        print(model.identity.id, model.identity.version, model.identity.sha256)
        for name, value in model.info["metrics"].items():
            print(f"  {name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
