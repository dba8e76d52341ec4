"""`python -m AnomalyDetectionLib.cli` is `slicer-anomaly`."""

from __future__ import annotations

import sys

from AnomalyDetectionLib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
