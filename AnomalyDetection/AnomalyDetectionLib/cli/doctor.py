"""Say whether scoring would run on this machine, and if not, why.

Checks Python and the packages against what is needed, computes a little on every GPU, looks at memory and disk space,
and verifies and loads the models given as BUNDLE.  Exit code 0 if scoring would run, 2 if not.

--wheelhouse DIR fills a folder with the wheels that Slicer's Python needs, to carry to a machine without a network; it
must be run on the same kind of machine (system and processor), and needs a network itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .machine import REQUIREMENTS, Report, inspect
from .wheelhouse import make_wheelhouse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `slicer-anomaly doctor`."""
    parser.add_argument("bundles", metavar="BUNDLE", nargs="*", type=Path, help="a model's folder to verify")
    parser.add_argument(
        "--wheelhouse", metavar="DIR", type=Path, help="make an offline wheel folder for Slicer instead"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")


def run(args: argparse.Namespace) -> int:
    """Report, or fill a wheelhouse; returns the exit code."""
    if args.wheelhouse is not None:
        wheels = make_wheelhouse(REQUIREMENTS, args.wheelhouse)
        size = sum(wheel.stat().st_size for wheel in wheels)
        if args.json:
            print(json.dumps({"wheelhouse": str(args.wheelhouse), "wheels": [wheel.name for wheel in wheels]}))
        else:
            print(f"{len(wheels)} wheels ({size / 1e6:.0f} MB) are in {args.wheelhouse}; see the README.txt there.")
        return 0
    report = inspect(args.bundles)
    print(json.dumps(report.to_json(), indent=1) if args.json else "\n".join(lines_of(report)))
    return 0 if report.ready else 2


def lines_of(report: Report) -> list[str]:
    """The report for people."""
    memory = f"{_gb(report.memory_bytes)} of memory, {_gb(report.memory_free_bytes)} free"
    lines = [
        f"slicer-anomaly {report.software}, Python {report.python}, {report.system}",
        f"  cpu      {report.cpu_cores} core{'s' if report.cpu_cores != 1 else ''}, {memory}",
    ]
    lines += [
        f"  {g.device:<8} {g.name}, {_gb(g.free_bytes)} of {_gb(g.total_bytes)} free: {_verdict(g.problem)}"
        for g in report.gpus
    ]
    lines += [] if report.gpus else ["  gpu      none that PyTorch can use"]
    lines += [f"  disk     {_gb(disk.free_bytes)} free for {disk.use}: {disk.path}" for disk in report.disks]
    lines += [
        f"  package  {p.name} {p.installed or 'missing'} (needed: {p.required}): {_verdict(p.problem)}"
        for p in report.packages
    ]
    lines += [
        f"  model    {m.path}: {m.id or 'not usable'} {m.version or ''} {_verdict(m.problem)}" for m in report.models
    ]
    lines += [f"warning: {warning}" for warning in report.warnings]
    lines += [f"problem: {problem}" for problem in report.problems]
    lines.append("Scoring would run." if report.ready else "Scoring would not run; mend the problems above.")
    return lines


def _verdict(problem: str | None) -> str:
    return "works" if problem is None else "does not work"


def _gb(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e9:.1f} GB"
