"""Runs in 3D Slicer (and under the project's harness): the installed module is whole and finds the other one."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from AnomalyDetectionLib.errors import InputError
from AnomalyTrainingLib.cohorts.manifest import read_manifest


class AnomalyTrainingInstalledTest(unittest.TestCase):
    """Refuses what is not a cohort manifest with the sentence every door shows."""

    def test_a_table_without_the_columns_of_a_manifest_is_refused_by_name(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cohort.csv"
            path.write_text("name,age\nsomebody,50\n", encoding="utf-8")
            with self.assertRaises(InputError) as caught:
                read_manifest(path)
        self.assertIn("cohort.csv", str(caught.exception))
