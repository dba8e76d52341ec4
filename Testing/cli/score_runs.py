"""`score` as the tests call it, and what they look at in its folder."""

from __future__ import annotations

from pathlib import Path

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.interop.reports import is_complete


def score(*arguments: object, progress: str = "none") -> int:
    return main(["score", *map(str, arguments), "--progress", progress])


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}


def nothing_half_written(out: Path) -> bool:
    """No temporary names, and every case's folder complete."""
    left = [path for path in out.rglob("*") if path.name.endswith(".partial")]
    return not left and all(is_complete(path) for path in out.iterdir() if path.is_dir())


def one_sentence(said: str) -> bool:
    return said.count("\n") == 1 and said.rstrip().endswith(".") and "Traceback" not in said
