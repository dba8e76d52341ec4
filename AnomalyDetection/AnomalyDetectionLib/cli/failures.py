"""A fault of ours on the command line: one sentence, and the traceback in a file."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from pathlib import Path

from AnomalyDetectionLib.errors import one_line


def fault_sentence(error: BaseException) -> str:
    """Write the traceback to a log file and say where it is."""
    what = one_line(f"{type(error).__name__}: {error}")
    try:
        log = Path(tempfile.gettempdir()) / f"slicer-anomaly-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
        with log.open("a", encoding="utf-8") as stream:
            stream.write("".join(traceback.format_exception(error)) + "\n")
    except OSError:
        return f"This is a fault in slicer-anomaly ({what}); run it again with --debug to see the traceback."
    return f"This is a fault in slicer-anomaly ({what}); the traceback is in {log}."
