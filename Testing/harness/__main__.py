"""Open scripted modules and run their own test classes: `python -m harness MODULE.py …`."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

from . import open_module


def main(paths: list[str]) -> int:
    suite = unittest.TestSuite()
    for path in paths:
        open_module(path)
        name = Path(path).stem
        suite.addTest(unittest.defaultTestLoader.loadTestsFromTestCase(getattr(sys.modules[name], f"{name}Test")))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    import slicer

    slicer.app.unload_modules()  # as quitting does: modules end their processes
    return 0 if result.wasSuccessful() and result.testsRun >= len(paths) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
