"""The folder that results go to: one run at a time, one model and threshold, nothing half-written.

Beside the cases' folders it holds `run.json` (what was scored, with which model: what `--resume` goes by) and, while a
run is at work, `.lock`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from AnomalyDetectionLib.errors import NO_PERMISSION, NO_SPACE, InputError, OutputError

LOCK_NAME = ".lock"
RUN_NAME = "run.json"
SUMMARY_NAME = "scores.csv"
RUN_SCHEMA = "slicer-anomaly/run/1"

LEAST_FREE_BYTES = 8 << 20
"""Less free space than this and no case can be written: report, tables and picture of a small volume take 1 to 4 MB."""

_CASE_NAME = re.compile(r"[\w-][\w.-]*")
"""As `imaging.write.safe_name` makes them: one folder of this one, and no other place."""

_LOCKED_BYTE = 1 << 30
"""Windows forbids others to read locked bytes, so the lock lies beyond the text that names its holder."""

_BUSY = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}


class OutputFolder:
    """A locked output folder; use as a context manager.

    The lock is the operating system's, so that it goes with its process, even one that was killed; the file names the
    holder for people, and for another host that shares the folder over a network without sharing its locks.

    Parameters
    ----------
    path
        The folder; made if missing, and taken away again if nothing came to lie in it.

    Raises
    ------
    OutputError
        If it cannot be made or written to, lacks space, or another run is at work in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []
        self._lock: IO[str] | None = None

    def __enter__(self) -> OutputFolder:
        self._make()
        try:
            self._take_lock()
            self._check_writable()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    # -- what is in it

    def read_run(self) -> dict[str, Any] | None:
        """`run.json` of an earlier run, or None.

        Raises
        ------
        InputError
            If it is there but is not what this software writes.
        """
        path = self.path / RUN_NAME
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            data = None
        model, cases = (data.get("model"), data.get("cases")) if isinstance(data, dict) else (None, None)
        if not isinstance(model, dict) or not isinstance(cases, dict) or data.get("schema") != RUN_SCHEMA:
            raise InputError(
                f"{path.name} in the output folder was not written by this version; choose another folder."
            )
        # The names become folders that are written, and removed where an input changed: none may lead elsewhere.
        if not all(isinstance(c, dict) and isinstance(c.get("input"), str) for c in cases.values()) or not all(
            map(_CASE_NAME.fullmatch, cases)
        ):
            raise InputError(f"{path.name} in the output folder is damaged; choose another folder.")
        return data

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the folder in one step: it is either the old one or the new one, never a part."""
        temporary = self.path / f".{name}.partial"
        try:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def clear_leftovers(self) -> None:
        """Take away what a killed run left under temporary names (only while holding the lock)."""
        for path in self.path.glob(".*.partial"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def check_space(self, needed: int) -> None:
        """Refuse to start a case whose results will not fit.

        Raises
        ------
        OutputError
            If less than `needed` bytes are free.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise OutputError(
                f"{self.path.name}: {needed / 1e6:.0f} MB may be needed and {free / 1e6:.0f} MB are free; "
                "free some space or choose another folder, and continue with --resume."
            )

    # -- making, locking, leaving

    def _make(self) -> None:
        try:
            missing = [p for p in (self.path, *self.path.parents) if not p.exists()]
            for folder in reversed(missing):
                folder.mkdir()
                self._made.append(folder)
        except OSError as error:
            self._leave()
            raise self._cannot_write(error) from error
        if not self.path.is_dir():
            raise OutputError(f"{self.path.name}: this is a file; give a folder to write the results to.")

    def _check_writable(self) -> None:
        try:
            self.check_space(LEAST_FREE_BYTES)
            with tempfile.TemporaryFile(prefix=".", suffix=".partial", dir=self.path) as probe:
                probe.write(b"\0" * 65536)
                probe.flush()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> OutputError:
        if error.errno in NO_PERMISSION:
            reason = "there is no permission to write in this folder; change its permissions or choose another folder"
        elif error.errno in NO_SPACE:
            reason = "there is no space left to write; free some space or choose another folder"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            reason = "a part of this path is a file; choose another folder"
        else:
            reason = f"this folder cannot be written to ({error.strerror or error}); choose another folder"
        return OutputError(f"{self.path}: {reason}.")

    def _take_lock(self) -> None:
        path = self.path / LOCK_NAME
        while True:
            try:
                stream = path.open("a+", encoding="utf-8")
            except OSError as error:
                raise self._cannot_write(error) from error
            try:
                _lock(stream)
            except OSError as error:
                holder = _holder(path)
                stream.close()
                if error.errno not in _BUSY:
                    raise self._cannot_write(error) from error
                raise self._busy(holder) from None
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                    break
            stream.close()  # the holder before us removed the file between our opening and our locking it
        self._lock = stream
        holder = _holder(path)
        if holder.get("host") not in (None, socket.gethostname()):
            self._release(keep=True)
            raise self._busy(holder)
        stream.seek(0)
        stream.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, stream)
        stream.flush()

    def _busy(self, holder: dict[str, Any]) -> OutputError:
        elsewhere = holder.get("host") not in (None, socket.gethostname())
        who = f" (process {holder['pid']} on {holder['host']})" if {"pid", "host"} <= set(holder) else ""
        mend = f"if that run is no longer alive, delete {LOCK_NAME} in it" if elsewhere else "wait for it to end"
        return OutputError(
            f"{self.path.name}: another run writes into this folder{who}; {mend}, or choose another folder."
        )

    def _release(self, *, keep: bool = False) -> None:
        if self._lock is None:
            return
        path, stream = self.path / LOCK_NAME, self._lock
        self._lock = None
        if not keep and os.name != "nt":  # while it is held, or a third run could lock a file that is about to go
            path.unlink(missing_ok=True)
        stream.close()
        if not keep and os.name == "nt":  # Windows does not delete an open file
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _leave(self) -> None:
        self._release()
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:
                break
        self._made = []


def _holder(path: Path) -> dict[str, Any]:
    """Who the lock file names; {} if it names nobody."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _lock(stream: IO[str]) -> None:
    """Take the operating system's lock on an open file, or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        stream.seek(_LOCKED_BYTE)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
