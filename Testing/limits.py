"""Disks that are too small and folders that may not be written, for tests of what happens then."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """A folder that takes about `size` bytes: a tmpfs where the tests may mount one, otherwise a limit on file sizes.

    The limit is this process's (and its children's) own: a file longer than `size` fails with "File too large".
    """
    path.mkdir()
    if _mount(path, size):
        try:
            yield path
        finally:
            subprocess.run(["umount", str(path)], check=True)
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield path
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def forbidden_folder(path: Path) -> Iterator[Path]:
    """A folder that this process may not write to, even where the tests run as root (they are nobody meanwhile)."""
    path.mkdir()
    path.chmod(0o500)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield path
    finally:
        if root:
            os.seteuid(0)
        path.chmod(0o700)


def _mount(path: Path, size: int) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    return subprocess.run(command, capture_output=True).returncode == 0
