"""`python -m AnomalyDetectionLib.worker --folder DIR` is the worker."""

from __future__ import annotations

import os
import sys

from AnomalyDetectionLib.worker.child import main

if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to write, and taking torch down would cost another second
