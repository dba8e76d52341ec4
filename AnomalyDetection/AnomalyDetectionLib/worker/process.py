"""The worker for Python programs without Qt: `subprocess` and threads, called and waited for."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from AnomalyDetectionLib.errors import Cancelled, InputError

from .client import Client, Progress, Watcher
from .session import Exit, Failure, Launch, Listener
from .tree import kill_tree

if TYPE_CHECKING:
    from AnomalyDetectionLib.imaging.volume import Volume
    from AnomalyDetectionLib.scoring.explaining import Explanation
    from AnomalyDetectionLib.scoring.result import ScoreResult

_READ_BYTES = 1 << 16
_POLL_S = 0.02
_STRAGGLERS_S = 1.0
"""After the worker's end its output is waited for that long: what it started may hold the pipe open."""

Events = queue.SimpleQueue[Callable[[], None]]


class WorkerError(RuntimeError):
    """The worker failed; `failure` says how."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class SubprocessProcess:
    """A process whose events wait in a queue until the owner takes them.

    Parameters
    ----------
    events
        Shared by all processes of an owner.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()  # its end is in the queue

    def start(self, launch: Launch, listener: Listener) -> None:
        try:
            process = subprocess.Popen(
                [launch.program, *launch.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | dict(launch.environment),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            reason = error.strerror or str(error)
            self._events.put(lambda: listener.not_started(reason))
            self._ended.set()
            return
        self._process = process
        assert process.stdout is not None and process.stderr is not None
        readers = [
            self._thread(self._read, process.stdout, listener.received),
            self._thread(self._read, process.stderr, listener.logged),
        ]
        self._thread(self._await_end, process, listener, readers)

    @staticmethod
    def _thread(target: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        return thread

    def _read(self, stream: IO[bytes], tell: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(stream.fileno(), _READ_BYTES):
                self._events.put(lambda data=data: tell(data))  # type: ignore[misc]

    def _await_end(self, process: subprocess.Popen[bytes], listener: Listener, readers: list[threading.Thread]) -> None:
        code = process.wait()
        until = time.monotonic() + _STRAGGLERS_S
        for reader in readers:
            reader.join(max(0.0, until - time.monotonic()))
        how = Exit(signal=-code) if code < 0 else Exit(code=code)
        self._events.put(lambda: listener.finished(how))
        self._ended.set()
        for stream, reader in zip((process.stdout, process.stderr), readers, strict=True):
            if stream is not None and not reader.is_alive():
                stream.close()

    def write(self, data: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self._process.stdin.write(data)
                self._process.stdin.flush()

    def close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def kill_tree(self, worker: int | None) -> None:
        if self._process is not None and self._process.poll() is None:
            kill_tree(self._process.pid, worker)
        self.close_input()

    def wait(self, seconds: float) -> bool:
        ended = self._ended.wait(seconds)
        deliver(self._events)
        return ended


def deliver(events: Events, seconds: float = 0.0) -> None:
    """Hand out all events there are; wait for the first one at most so long."""
    try:
        event = events.get(timeout=seconds) if seconds > 0 else events.get_nowait()
        while True:
            event()
            event = events.get_nowait()
    except queue.Empty:
        return


class Worker:
    """A scoring worker to be called from Python: each call waits for its answer.

    Parameters
    ----------
    program
        The Python interpreter of the worker; None for this one.
    environment
        Variables added to its environment.
    log
        Given every line for the log.

    Examples
    --------
    >>> with Worker() as worker:                                            # doctest: +SKIP
    ...     result = worker.score(read_volume("patient.nii.gz"), "brain_t1")
    """

    def __init__(
        self,
        *,
        program: str | None = None,
        environment: Mapping[str, str] | None = None,
        log: Callable[[str], None] = lambda line: None,
        trouble: Callable[[Failure], None] = lambda failure: None,
    ) -> None:
        self._events: Events = queue.SimpleQueue()
        self.client = Client(
            lambda: SubprocessProcess(self._events),
            program=program,
            environment=environment,
            log=log,
            trouble=trouble,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker and remove every file."""
        self.client.close()

    def score(
        self,
        volume: Volume,
        bundle: str | Path,
        *,
        device: str = "auto",
        threshold: float | None = None,
        case: str | None = None,
        explain: Explanation | None = None,
        progress: Callable[[Progress], None] = lambda progress: None,
    ) -> ScoreResult:
        """The same result as `Scorer.score`, computed in the worker.

        Parameters
        ----------
        progress
            Told how far it is; what it raises stops the scoring and is raised here.

        Raises
        ------
        InputError
            If the image does not fit the model or cannot be handed over, or the model is damaged.
        WorkerError
            If memory ran out, the worker died, or there is a fault in the software.
        """
        settings: dict[str, Any] = {"device": device, "threshold": threshold, "case": case, "explain": explain}
        return self._call(lambda watcher: self.client.score(volume, bundle, watcher, **settings), progress)

    def load(self, bundle: str | Path) -> dict[str, Any]:
        """Load a model now; raises as `score`."""
        return self._call(lambda watcher: self.client.load(bundle, watcher))

    def unload(self, bundle: str | Path | None = None) -> int:
        """Forget a model, or all; the number that was forgotten."""
        return self._call(lambda watcher: self.client.unload(bundle, watcher))

    def models(self) -> list[dict[str, Any]]:
        """The loaded models."""
        return self._call(self.client.models)

    def devices(self) -> list[dict[str, Any]]:
        """The devices scoring can run on."""
        return self._call(self.client.devices)

    def ping(self) -> bool:
        """True once the worker has answered."""
        return self._call(self.client.ping)

    def _call(
        self, submit: Callable[[Watcher], int], progress: Callable[[Progress], None] = lambda progress: None
    ) -> Any:
        outcome: list[tuple[Any, Failure | None]] = []
        raised: list[BaseException] = []

        def watch(news: Progress) -> None:
            if not raised:
                try:
                    progress(news)
                except BaseException as error:
                    raised.append(error)
                    self.client.cancel(number)

        watcher = Watcher(
            done=lambda value: outcome.append((value, None)),
            failed=lambda failure: outcome.append((None, failure)),
            progress=watch,
        )
        number = submit(watcher)
        try:
            while not outcome:
                deliver(self._events, _POLL_S)
                self.client.poll()
        except BaseException:  # Ctrl-C: nobody waits for the answer any more
            self.client.cancel(number)
            raise
        if raised:
            raise raised[0]
        value, failure = outcome[0]
        if failure is not None:
            raise _error_of(failure)
        return value


def _error_of(failure: Failure) -> Exception:
    if failure.kind == "bad-input":
        return InputError(failure.message)
    if failure.kind == "cancelled":
        return Cancelled(failure.message)
    return WorkerError(failure)
