"""The command line.  Nothing here imports numpy or torch: `slicer-anomaly --help` answers at once.

`VERBS` names each verb's module and its line in the help; the module has `add_arguments(parser)` and
`run(args) -> int`.
"""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "calibrate": ("AnomalyDetectionLib.cli.calibrate", "adapt a model's calibration to another scanner's normals"),
    "score": ("AnomalyDetectionLib.cli.score", "score images: a map of rarity, findings and a report per case"),
    "doctor": ("AnomalyDetectionLib.cli.doctor", "say whether scoring would run on this machine, and why not"),
}
