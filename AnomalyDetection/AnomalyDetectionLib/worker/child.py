"""The worker itself: reads requests, computes, answers.

The main thread computes, always the same one: cuDNN keeps its plans per thread, and making them anew costs a second a
score (measured by the authors of SlicerNNInteractive: 1.2 s against 0.11 s).  A second thread reads standard input, so
that `cancel` and the end of the input are seen while something is at work.  torch is imported with the first request
that needs it: the greeting comes at once.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.metadata
import os
import platform
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import Cancelled, InputError, is_out_of_memory, one_line, sentence_of

from .protocol import PROTOCOL, Lines, ProtocolError, decode, encode

if TYPE_CHECKING:
    from .tasks import Tasks

SHUTDOWN_GRACE_S = 1.0
"""What is at work has that long to stop after `shutdown`; the process then ends all the same."""

_MOST_DETAILS = 20_000
_READ_BYTES = 1 << 16


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the input ends or `shutdown` comes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="AnomalyDetectionLib.worker", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="private folder through which voxels come and go")
    folder = parser.parse_args(argv).folder
    stdin, stdout = _take_streams()
    _become_a_group()
    faulthandler.enable(sys.stderr)  # a crash inside a library leaves its place in the log
    return Child(folder, stdin, Out(stdout)).serve()


def _take_streams() -> tuple[int, int]:
    """Descriptors of the real standard input and output, kept out of everybody else's reach.

    What libraries print, from Python or from C, goes to standard error instead and cannot break the protocol.
    """
    stdin, stdout = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    return stdin, stdout


def _become_a_group() -> None:
    """Lead a process group, so that whoever ends the worker ends what it started too (`tree.kill_tree`)."""
    if hasattr(os, "setpgid"):
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the program that started the worker


class Out:
    """Standard output: whole lines, from either thread."""

    def __init__(self, descriptor: int) -> None:
        self._stream: IO[bytes] = os.fdopen(descriptor, "wb", buffering=0)
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Write one message; ends the process if nobody reads any more.

        Raises
        ------
        ProtocolError
            If the message is too long.
        """
        data = memoryview(encode(message))
        try:
            with self._lock:
                while data:
                    data = data[self._stream.write(data) or 0 :]
        except OSError:
            os._exit(0)


class Child:
    """Takes requests in and has them done one after the other."""

    def __init__(self, folder: Path, stdin: int, out: Out) -> None:
        self._folder = folder
        self._stdin = stdin
        self._out = out
        self._todo: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._stopping = threading.Event()
        self._tasks: Tasks | None = None

    def serve(self) -> int:
        """Greet, then work until told to stop; returns the exit code."""
        self._out.send(
            {
                "type": "hello",
                "protocol": PROTOCOL,
                "software": __version__,
                "python": platform.python_version(),
                "torch": _installed("torch"),
                "pid": os.getpid(),
            }
        )
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        while (request := self._todo.get()) is not None:
            self._answer(request)
        return 0

    def _read(self) -> None:
        """The second thread: queue requests, take `cancel` and the end of the input at once."""
        lines = Lines()
        try:
            while data := os.read(self._stdin, _READ_BYTES):
                for line in lines.feed(data):
                    self._take(line)
        except (OSError, ProtocolError) as error:
            print(f"worker: the requests cannot be read: {error}", file=sys.stderr)
        # The program is gone, in the middle of a score perhaps: nobody is left to answer, or to end this process.
        os._exit(0)

    def _take(self, line: bytes) -> None:
        try:
            request = decode(line, "request")
        except ProtocolError as error:
            self._fail(None, "fault", f"The worker was sent something that is no request ({error}).")
            return
        if request["type"] == "ping":
            self._out.send({"type": "result", "id": request["id"], "value": {"pong": True}})
        elif request["type"] == "cancel":
            self._cancelled.add(request["id"])
        elif request["type"] == "shutdown":
            self._stopping.set()
            self._todo.put(None)
            timer = threading.Timer(SHUTDOWN_GRACE_S, os._exit, [0])
            timer.daemon = True
            timer.start()
        else:
            self._todo.put(request)

    def _answer(self, request: dict[str, Any]) -> None:
        """Do one request; whatever it raises becomes the answer."""
        number, failed = request["id"], False
        try:
            self.check_cancelled(number)
            value = self._tasks_ready().do(request)
            try:
                self._out.send({"type": "result", "id": number, "value": value})
            except ProtocolError as error:
                raise InputError(
                    "There are too many findings to hand over; choose a higher threshold and try again."
                ) from error
        except Cancelled:
            self._fail(number, "cancelled", "Stopped.")
        except Exception as error:
            self._fail(number, *_explained(error))
            failed = True
        if failed and self._tasks is not None:
            self._tasks.clean_up()
        self._cancelled.discard(number)

    def _tasks_ready(self) -> Tasks:
        if self._tasks is None:
            from .tasks import Tasks

            self._tasks = Tasks(self._folder, self)
        return self._tasks

    def check_cancelled(self, number: int) -> None:
        """Raise `Cancelled` if the request is no longer wanted."""
        if number in self._cancelled or self._stopping.is_set():
            raise Cancelled

    def progress(self, number: int, stage: str, fraction: float, seconds_left: float | None) -> None:
        """Tell how far a request is."""
        self._out.send({"type": "progress", "id": number, "stage": stage, "fraction": fraction, "eta_s": seconds_left})

    def log(self, message: str, level: str = "info") -> None:
        """A line for the log."""
        self._out.send({"type": "log", "level": level, "message": message[:10_000]})

    def _fail(self, number: int | None, kind: str, message: str, details: str = "") -> None:
        message = one_line(message, 2000)
        self._out.send({"type": "error", "id": number, "kind": kind, "message": message, "details": details})


def _explained(error: Exception) -> tuple[str, str, str]:
    """Kind, sentence and details of a failure."""
    details = "".join(traceback.format_exception(error))[-_MOST_DETAILS:]
    sentence = sentence_of(error)
    if is_out_of_memory(error):
        return "out-of-memory", sentence or "", details
    if sentence is not None:
        return "bad-input", sentence, details
    if isinstance(error, ImportError):
        return "fault", f"A package that scoring needs cannot be used ({error}); install it and try again.", details
    return "fault", f"This is a fault in scoring ({type(error).__name__}: {error}); the log has the details.", details


def _installed(package: str) -> str | None:
    """The version of an installed package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
