"""Runs in 3D Slicer (and under the project's harness): the installed module is whole and needs nothing to be installed.

Volumes are read and described with what Slicer's Python bundles, torch not among it.
"""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from AnomalyDetectionLib.imaging.foreground import foreground
from AnomalyDetectionLib.imaging.read import read_volume


class AnomalyDetectionInstalledTest(unittest.TestCase):
    """Reads a volume that SimpleITK wrote and finds the patient in it."""

    def test_a_written_volume_is_read_and_its_foreground_found(self) -> None:
        values = np.zeros((20, 24, 28), dtype=np.float32)
        values[5:15, 6:18, 7:21] = 100 + np.arange(10 * 12 * 14, dtype=np.float32).reshape(10, 12, 14) / 100
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((1.0, 2.0, 3.0))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "volume.nrrd"
            sitk.WriteImage(image, str(path))
            volume = read_volume(path)
        np.testing.assert_array_equal(np.squeeze(volume.array), values)
        found = foreground(volume)
        self.assertTrue(found[10, 12, 14])
        self.assertFalse(found[0, 0, 0])
