"""Processor time of opening the Anomaly Detection module: its file, its library and its panel.

    python Testing/benchmarks/bench_open.py [--repeat 5] [--limit 200]

Each opening is that of a new process, in which what Slicer itself is (here the harness) has started already.  The
first one only compiles the files, as installing the module in Slicer does, and does not count.  Reports the least and
the median; exits with 1 if the least is beyond the limit (ms), or if opening imported what it must not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LATER = ("SimpleITK", "jsonschema", "nibabel", "pydicom", "scipy", "torch")
"""Packages that are imported when they are needed, not by opening the panel."""

OPEN = """\
import sys, time, harness
harness.start()
sys.dont_write_bytecode, sys.pycache_prefix = False, sys.argv[3]
before = set(sys.modules)
start = time.process_time()
harness.open_module(sys.argv[1])
print(time.process_time() - start, *(set(sys.argv[2].split(",")) & (set(sys.modules) - before)))
"""


def openings(count: int, bytecode: Path) -> tuple[list[float], set[str]]:
    """Processor time (s) of opening the module `count` times, each in a new process, and what of `LATER` it imported.

    Parameters
    ----------
    bytecode
        Folder that keeps the compiled files.
    """
    own = [str(CHECKOUT / folder) for folder in ("AnomalyDetection", "AnomalyTraining", "Testing")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*own, os.environ.get("PYTHONPATH", "")])}
    file = str(CHECKOUT / "AnomalyDetection" / "AnomalyDetection.py")
    took, imported = [], set()
    for _ in range(count + 1):
        command = [sys.executable, "-c", OPEN, file, ",".join(LATER), str(bytecode)]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        seconds, *names = told.splitlines()[-1].split()
        took.append(float(seconds))
        imported.update(names)
    return took[1:], imported


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--limit", type=float, default=200, help="ms")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        took, imported = openings(arguments.repeat, Path(folder))
    least = 1000 * min(took)
    print(f"opened in {least:.0f} ms at least, {1000 * statistics.median(took):.0f} ms in the median (processor time)")
    if imported:
        print(f"imported already: {', '.join(sorted(imported))}")
    return int(bool(imported) or least > arguments.limit)


if __name__ == "__main__":
    sys.exit(main())
