"""One life of a worker process, from its start to the verdict on its end; knows nothing of Qt or threads."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import one_line, speaks_of_memory

from .protocol import PROTOCOL, Lines, ProtocolError, decode, encode

LIBRARY = Path(__file__).resolve().parents[2]
"""The folder from which the worker imports the same code as this program."""

_STDERR_TAIL = 20_000
_LAST_WORDS = 4000
_MOST_NOISE = 1_000_000
_KILLED = 9


@dataclass(frozen=True)
class Failure:
    """Why a request has no result.

    Attributes
    ----------
    kind
        "bad-input", "out-of-memory", "fault" (of the software), "cancelled", or "worker" (the process could not be
        started, crashed, or said something that is no message).
    message
        One sentence for the user: what happened and what to do.
    details
        Traceback or the last lines of the worker's log.
    """

    kind: str
    message: str
    details: str = ""


@dataclass(frozen=True)
class Launch:
    """How a worker is started; `environment` is added to this program's own."""

    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def launch_of(folder: Path, program: str | None = None, environment: Mapping[str, str] | None = None) -> Launch:
    """The command of a worker that shares a private folder with this program.

    Parameters
    ----------
    program
        The Python interpreter; None for that of this program.
    """
    path = os.pathsep.join([str(LIBRARY), *filter(None, [os.environ.get("PYTHONPATH")])])
    added = {
        "PYTHONPATH": path,
        "PYTHONUTF8": "1",
        "PYTHONSAFEPATH": "1",  # a json.py in the current folder must not be imported
        **(environment or {}),
    }
    return Launch(program or sys.executable, ("-m", "AnomalyDetectionLib.worker", "--folder", str(folder)), added)


@dataclass(frozen=True)
class Exit:
    """How a process ended: with a code, or by a signal (where the system has them)."""

    code: int | None = None
    signal: int | None = None

    @property
    def was_killed(self) -> bool:
        """True for SIGKILL, which is what a system out of memory sends; 137 is how a shell passes that on."""
        return self.signal == _KILLED or self.code == 128 + _KILLED


class Listener(Protocol):
    """Whom a process tells what happens; always called in the thread that owns the client."""

    def received(self, data: bytes) -> None:
        """Bytes of its standard output."""

    def logged(self, data: bytes) -> None:
        """Bytes of its standard error."""

    def finished(self, how: Exit) -> None:
        """It has ended, and all it said was handed over."""

    def not_started(self, reason: str) -> None:
        """It could not be started."""


class Process(Protocol):
    """A process that is started once: by `subprocess` (`worker.process`) or Qt (`slicer_ui.process`)."""

    def start(self, launch: Launch, listener: Listener) -> None:
        """Start it; does not wait."""

    def write(self, data: bytes) -> None:
        """Write to its standard input; does nothing if it has ended."""

    def close_input(self) -> None:
        """Close its standard input."""

    def kill_tree(self, worker: int | None) -> None:
        """Kill it and what it started; `worker` is the id that the worker gave of itself, if it has greeted."""

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most so long; what it said until then is handed to the listener.  True if it ended."""


class Owner(Protocol):
    """What a session tells the client."""

    def greeted(self, session: Session) -> None:
        """The worker is ready for requests."""

    def answered(self, session: Session, message: dict[str, Any]) -> None:
        """An answer came; raises ProtocolError for one that makes no sense."""

    def said(self, line: str) -> None:
        """A line for the log."""

    def ended(self, session: Session, failure: Failure | None) -> None:
        """The worker is no more; `failure` is None where it ended as it was told to."""


class Session:
    """Decodes what one worker says and judges how it ends.

    Attributes
    ----------
    hello
        The worker's greeting, or None before it came.
    """

    def __init__(self, process: Process, owner: Owner) -> None:
        self.hello: dict[str, Any] | None = None
        self._process = process
        self._owner = owner
        self._lines = Lines()
        self._errors = Lines()
        self._tail = ""
        self._noise = 0
        self._over = False
        self._told_to_end = False
        self._inbox: list[bytes] = []
        self._dispatching = False

    def start(self, launch: Launch) -> None:
        """Start the process."""
        self._program = launch.program
        self._process.start(launch, self)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a request."""
        self._process.write(encode(message))

    def end(self, failure: Failure | None) -> None:
        """Kill the process and report why; whatever it still says is ignored."""
        if not self._over:
            self._over = True
            self._kill()
            self._owner.ended(self, failure)

    def shut_down(self, seconds: float) -> None:
        """Ask the process to end, and kill it if it does not within that time."""
        if self._over:
            return
        self._told_to_end = True
        self._process.write(encode({"type": "shutdown"}))
        self._process.close_input()
        if not self._process.wait(seconds):
            self.end(None)
            self._process.wait(seconds)

    def discard(self, seconds: float) -> None:
        """Kill the process, without a word to the owner, and wait until it is gone."""
        self._over = True
        self._kill()
        self._process.wait(seconds)

    def _kill(self) -> None:
        self._process.kill_tree(None if self.hello is None else self.hello["pid"])

    # ---- what the process tells

    def received(self, data: bytes) -> None:
        self._inbox.append(data)
        if self._dispatching:  # an answer's receiver has let events in: it is handled when that one is done
            return
        self._dispatching = True
        raised: list[Exception] = []
        try:
            while self._inbox and not self._over:
                for line in self._lines.feed(self._inbox.pop(0)):
                    if not self._over:
                        self._take(line, raised)
        except ProtocolError as error:
            self.end(_gibberish(error))
        finally:
            self._dispatching = False
        if raised:
            raise raised[0]

    def logged(self, data: bytes) -> None:
        self._tail = (self._tail + data.decode("utf-8", "replace"))[-_STDERR_TAIL:]
        try:
            for line in self._errors.feed(data):
                self._owner.said(line.decode("utf-8", "replace"))
        except ProtocolError:  # a line without end: it is in the tail
            self._errors = Lines()

    def finished(self, how: Exit) -> None:
        if self._over:
            return
        self._over = True
        if self._told_to_end and how.code == 0:
            self._owner.ended(self, None)
        else:
            self._owner.ended(self, Failure(*self._verdict(how), self._tail))

    def not_started(self, reason: str) -> None:
        if not self._over:
            self._over = True
            sentence = f"The worker could not be started with {self._program} ({reason.rstrip('.')}); is Python there?"
            self._owner.ended(self, Failure("worker", sentence))

    def _take(self, line: bytes, raised: list[Exception]) -> None:
        """Handle one line; what an answer's receiver raises must not keep the next lines from being read."""
        try:
            self._handle(line)
        except ProtocolError:
            raise
        except Exception as error:
            raised.append(error)

    def _handle(self, line: bytes) -> None:
        try:
            message = decode(line, "answer")
        except ProtocolError:
            if self.hello is not None:
                raise
            # Before the greeting standard output is not ours yet: a start-up file of Python may print.
            self._noise += len(line)
            if self._noise > _MOST_NOISE:
                raise
            if _claims_to_be_a_greeting(line):
                self.end(_mismatch(line))
                return
            self._owner.said(line.decode("utf-8", "replace"))
            return
        if self.hello is None:
            self._greet(message)
        elif message["type"] == "log":
            self._owner.said(message["message"])
        else:
            self._owner.answered(self, message)

    def _greet(self, message: dict[str, Any]) -> None:
        if message["type"] != "hello":
            raise ProtocolError("the greeting is missing")
        if (message["protocol"], message["software"]) != (PROTOCOL, __version__):
            self.end(_mismatch_of(message["protocol"], message["software"]))
            return
        self.hello = message
        self._owner.greeted(self)

    def _verdict(self, how: Exit) -> tuple[str, str]:
        """Kind and sentence of an end that nobody asked for."""
        if how.was_killed:
            return "out-of-memory", (
                "The worker was killed by the system, most likely because memory ran out; close other programs, choose "
                "another device or score a smaller image, and try again."
            )
        if how.code != 0 and speaks_of_memory(self._tail[-_LAST_WORDS:]):
            return "out-of-memory", (
                "The worker ran out of memory; close other programs, choose another device or score a smaller image, "
                "and try again."
            )
        if how.signal is not None:
            return "worker", f"The worker crashed ({_signal_name(how.signal)}); try again, on the CPU if it was a GPU."
        last = _last_words(self._tail)
        if self.hello is None:
            return "worker", (
                f"The worker could not start (exit code {how.code}{f': {last}' if last else ''}); "
                "check the installed packages."
            )
        if how.code == 0:
            return "worker", "The worker ended without a result; try again, and look into the log if it happens again."
        return "worker", f"The worker failed (exit code {how.code}{f': {last}' if last else ''}); try again."


def _gibberish(error: ProtocolError) -> Failure:
    sentence = f"The worker said something that is no message and was stopped ({error}); try again."
    return Failure("worker", one_line(sentence))


_GREETING = re.compile(rb'"type"\s*:\s*"hello"')
_VERSIONS = re.compile(r'"(protocol|software)"\s*:\s*("[^"]{0,50}"|\d{1,9})')


def _claims_to_be_a_greeting(line: bytes) -> bool:
    """True for the greeting of another version, whatever its keys are."""
    return line.startswith(b"{") and _GREETING.search(line) is not None


def _mismatch(line: bytes) -> Failure:
    found = dict(_VERSIONS.findall(line.decode("utf-8", "replace")))
    return _mismatch_of(found.get("protocol", "unknown"), found.get("software", "unknown").strip('"'))


def _mismatch_of(protocol: object, software: object) -> Failure:
    sentence = (
        f"The worker is version {software} (protocol {protocol}), this program {__version__} (protocol {PROTOCOL}): "
        "two installations are mixed; install one again and restart."
    )
    return Failure("worker", one_line(sentence))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_words(tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return one_line(lines[-1], 300).rstrip(".") if lines else ""
