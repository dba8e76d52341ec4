"""The verbs that need training code; `AnomalyDetectionLib.cli.main` finds them through `VERBS`.

As there, each module has `add_arguments(parser)` and `run(args) -> int`; importing this package imports nothing else.
"""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "cohort": ("AnomalyTrainingLib.cli.cohort", "describe a data set as a cohort manifest, or make one of phantoms"),
    "train": ("AnomalyTrainingLib.cli.train", "fit a detector to the normals of a cohort"),
    "export": ("AnomalyTrainingLib.cli.export", "make the bundle of a training run, which every door can score with"),
    "evaluate": ("AnomalyTrainingLib.cli.evaluate", "judge a model and the baselines on cases it has not seen"),
    "crossval": ("AnomalyTrainingLib.cli.crossval", "train and evaluate a configuration fold by fold"),
    "compare": ("AnomalyTrainingLib.cli.compare", "compare models that were evaluated on the same cohort"),
    "review": ("AnomalyTrainingLib.cli.review", "make a form for expert readers, and analyse their answers"),
}
