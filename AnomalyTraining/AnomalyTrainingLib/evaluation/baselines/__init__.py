"""What every model is judged against: methods that need no model worth the name.

Those that make a map are detectors under the model's own contract, calibrated on the model's own calibration normals,
so that curve, reducer, threshold and findings are the model's in kind; those that judge whole cases are logistic
regressions.  They are fitted at the end of training and stored with the model.
"""

from __future__ import annotations

from collections.abc import Mapping

DESCRIPTIONS: Mapping[str, str] = {
    "random": "noise, seeded from the image",
    "prevalence": "the same score everywhere",
    "voxel_intensity": "how far out in either tail of the normals' intensities a voxel lies, wherever it is",
    "blur_residual": "difference from the image's own blurred version (sigma 3 voxels)",
    "mean_image_residual": "difference from the mean of the training normals at the same place",
    "zscore": "robust atlas z-score: deviation from the normals' median at the same place, in their spread",
    "untrained": "the model's own network with random weights",
    "volume_statistics": "logistic regression on the image's intensity statistics and size, supervised",
    "metadata": "logistic regression on age, sex, site and the like without looking at the image, supervised",
}
"""Baselines by name, in the order of reports (`training.config.BaselineName`)."""

SUPERVISED = ("volume_statistics", "metadata")
"""Those that learn from abnormal cases; they judge whole cases and make no map."""

MAPS = tuple(name for name in DESCRIPTIONS if name not in SUPERVISED)
