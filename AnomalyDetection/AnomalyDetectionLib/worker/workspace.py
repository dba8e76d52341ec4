"""The private folder through which a program and its worker hand each other voxels."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Container
from pathlib import Path

PREFIX = "slicer-anomaly-worker-"
_OWNER = "owner.json"
_FILE_NAME = re.compile(r"(\d{1,9})-[a-z]{1,32}\.npy")
_FRESH_S = 60.0
"""A folder younger than that is left alone: its owner may not have signed it yet."""


class Workspace:
    """A folder that only this user may enter; file names are `<request>-<what>.npy`.

    Making one first removes those that sessions of this user left behind when they crashed.

    Parameters
    ----------
    parent
        Where to make it; None for the system's folder of temporary files.

    Raises
    ------
    OSError
        If the folder cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        place = parent or Path(tempfile.gettempdir())
        remove_stale(place)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))  # mode 0700
        owner = {"pid": os.getpid(), "host": platform.node()}
        try:
            (self.path / _OWNER).write_text(json.dumps(owner), encoding="utf-8")
        except OSError:
            self.remove()  # without an owner nobody would
            raise

    def file(self, name: str) -> Path:
        """The path of a file of that name; see `file_in`."""
        return file_in(self.path, name)

    def clear(self, keep: Container[int] = ()) -> None:
        """Remove the files of all requests but those in `keep`.

        What Windows refuses to remove because it is still mapped goes at the next call, or with the folder.
        """
        for path in self.path.glob("*.npy"):
            found = _FILE_NAME.fullmatch(path.name)
            if found is None or int(found[1]) not in keep:
                with contextlib.suppress(OSError):
                    path.unlink()

    def remove(self) -> None:
        """Remove the folder and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def file_in(folder: Path, name: str) -> Path:
    """The path of a file in a private folder.

    Raises
    ------
    ValueError
        If the name is not of the form `<request>-<what>.npy`, or is that of a link.
    """
    path = folder / name
    if _FILE_NAME.fullmatch(name) is None or path.is_symlink():
        raise ValueError(f"{name!r} is no name of a file in the private folder")
    return path


def remove_stale(place: Path) -> list[Path]:
    """Remove the private folders in `place` whose owner, a process of this user on this machine, has ended.

    Returns
    -------
    The folders that were removed.
    """
    removed = []
    for path in place.glob(PREFIX + "*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            facts = path.lstat()
            if not stat.S_ISDIR(facts.st_mode) or (hasattr(os, "getuid") and facts.st_uid != os.getuid()):
                continue
            if time.time() - facts.st_mtime < _FRESH_S:
                continue
            owner = json.loads((path / _OWNER).read_text(encoding="utf-8"))
            if owner["host"] == platform.node() and not is_alive(int(owner["pid"])):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
    return removed


def is_alive(pid: int) -> bool:
    """Whether a process of that id runs; True where that cannot be told."""
    if sys.platform == "win32":
        return _is_alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_alive_on_windows(pid: int) -> bool:
    """There, `os.kill` with signal 0 would send Ctrl-C."""
    import ctypes

    query, still_active, no_such_process = 0x1000, 259, 87
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    handle = kernel.OpenProcess(query, False, pid)
    if not handle:
        return bool(ctypes.get_last_error() != no_such_process)  # type: ignore[attr-defined,unused-ignore]
    try:
        code = ctypes.c_ulong()
        return not kernel.GetExitCodeProcess(handle, ctypes.byref(code)) or code.value == still_active
    finally:
        kernel.CloseHandle(handle)
