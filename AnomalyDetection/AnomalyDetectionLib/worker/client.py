"""The program's side of the worker: queues requests, starts workers, follows them up and outlives them.

Knows nothing of Qt, threads or sockets: the process comes from outside (`session.Process`), and `poll` must be called
every 50 ms or so.  Everything runs in the thread that owns the client.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from AnomalyDetectionLib.errors import InputError, one_line, sentence_of

from .arrays import read_result_message, save_volume, volume_message
from .protocol import ProtocolError
from .schema import SchemaError, check
from .session import Failure, Process, Session, launch_of
from .workspace import Workspace

if TYPE_CHECKING:
    from AnomalyDetectionLib.imaging.volume import Volume
    from AnomalyDetectionLib.scoring.explaining import Explanation

CANCEL_GRACE_S = 1.0
"""A worker that has not answered `cancel` by then is killed."""
START_LIMIT_S = 60.0
"""A cold start takes a second or two; on a slow disk under a virus scanner far longer."""
END_GRACE_S = 2.0
_MOST_STARTS = 2

CANCELLED = Failure("cancelled", "Stopped.")


@dataclass(frozen=True)
class Progress:
    """How far a request is: `fraction` of the whole (0...1, never falling), `seconds_left` (None while unknown)."""

    stage: str
    fraction: float
    seconds_left: float | None


@dataclass
class Watcher:
    """Whom a request tells what becomes of it; exactly one of `done` and `failed` is called, once.

    `done` is given a ScoreResult for `score`, otherwise the plain value of the answer.
    """

    done: Callable[[Any], None]
    failed: Callable[[Failure], None]
    progress: Callable[[Progress], None] = lambda progress: None


@dataclass
class Request:
    """A request on its way."""

    id: int
    message: dict[str, Any]
    watcher: Watcher
    volume: Volume | None = None
    saving: Saving | None = None
    sent: bool = False
    starts: int = 0
    kill_at: float | None = None


class Saving:
    """Writes a volume's files in a thread: a large image takes seconds, for which no window may freeze."""

    def __init__(self, volume: Volume, folder: Path, request: int) -> None:
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._save, args=(volume, folder, request), name="saving")
        self._thread.start()

    def _save(self, volume: Volume, folder: Path, request: int) -> None:
        try:
            save_volume(volume, folder, request)
        except Exception as error:
            self.error = error

    @property
    def is_done(self) -> bool:
        """Whether the files are there, or could not be written."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the thread."""
        self._thread.join()


class Client:
    """Sends requests to one worker at a time; a worker that dies is replaced when the next request comes.

    Parameters
    ----------
    make_process
        Makes a process that is not started yet.
    program
        The Python interpreter of workers; None for this program's own.
    environment
        Variables added to the workers' environment.
    log
        Given every line for the log.
    trouble
        Given the failure of a worker that died while nothing was asked of it.
    """

    def __init__(
        self,
        make_process: Callable[[], Process],
        *,
        program: str | None = None,
        environment: Mapping[str, str] | None = None,
        log: Callable[[str], None] = lambda line: None,
        trouble: Callable[[Failure], None] = lambda failure: None,
    ) -> None:
        self._log = log
        self._make_process = make_process
        self._program, self._environment = program, environment
        self._trouble = trouble
        self._workspace: Workspace | None = None
        self._session: Session | None = None
        self._start_limit = 0.0
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._pings: dict[int, Request] = {}
        self._savings: list[Saving] = []
        self._last_id = 0

    # ---- requests

    def score(
        self,
        volume: Volume,
        bundle: str | Path,
        watcher: Watcher,
        *,
        device: str = "auto",
        threshold: float | None = None,
        case: str | None = None,
        explain: Explanation | None = None,
    ) -> int:
        """Ask for a score; returns the number to cancel it by.

        The volume's voxels are written to a file in the background and must not change until the first progress.
        """
        fields: dict[str, Any] = {"bundle": _absolute(bundle), "device": device, "threshold": threshold, "case": case}
        fields |= {"explain": None if explain is None else explain.to_json()}
        return self._submit("score", fields, watcher, volume)

    def load(self, bundle: str | Path, watcher: Watcher) -> int:
        """Load a model (and torch) now, so that the first score starts at once."""
        return self._submit("load", {"bundle": _absolute(bundle)}, watcher)

    def unload(self, bundle: str | Path | None, watcher: Watcher) -> int:
        """Let the worker forget a model, or all (None)."""
        return self._submit("unload", {"bundle": None if bundle is None else _absolute(bundle)}, watcher)

    def models(self, watcher: Watcher) -> int:
        """Ask which models are loaded."""
        return self._submit("models", {}, watcher)

    def devices(self, watcher: Watcher) -> int:
        """Ask which devices there are (imports torch in the worker)."""
        return self._submit("devices", {}, watcher)

    def ping(self, watcher: Watcher) -> int:
        """Ask whether the worker listens; answered also while it is at work."""
        request = self._new("ping", {}, watcher)
        self._pings[request.id] = request
        if self._session is None:
            self._start_session()
        elif self._session.hello is not None:
            self._session.send(request.message)
        return request.id

    def cancel(self, number: int) -> None:
        """Stop a request: it fails with the kind "cancelled", within about a second; nothing happens if it is over."""
        if (request := self._current) is not None and request.id == number:
            if request.sent and self._session is not None:
                if request.kill_at is None:
                    request.kill_at = time.monotonic() + CANCEL_GRACE_S
                    self._session.send({"type": "cancel", "id": number})
            else:
                self._settle(request, lambda: request.watcher.failed(CANCELLED))
        for waiting in [waiting for waiting in self._queue if waiting.id == number]:
            self._queue.remove(waiting)
            waiting.watcher.failed(CANCELLED)

    def poll(self) -> None:
        """Send what has become ready, and keep the deadlines."""
        self._advance()
        now = time.monotonic()
        request, session = self._current, self._session
        if session is None:
            return
        if request is not None and request.kill_at is not None and now >= request.kill_at:
            self.said("The worker did not stop in time and was killed.")
            session.end(CANCELLED)
        elif session.hello is None and now >= self._start_limit:
            sentence = f"The worker said nothing for {START_LIMIT_S:.0f} s after its start and was stopped; try again."
            session.end(Failure("worker", sentence))

    def close(self) -> None:
        """End the worker and remove every file; pending requests are dropped without a word.

        A later request starts anew.
        """
        self._queue.clear()
        self._pings.clear()
        busy, self._current = self._current is not None, None
        if (session := self._session) is not None:
            if busy or session.hello is None:
                session.discard(END_GRACE_S)
            else:
                session.shut_down(END_GRACE_S)
            self._session = None
        for saving in self._savings:  # or a file would come back into the folder that is being removed
            saving.wait()
        if self._workspace is not None:
            self._workspace.remove()
            self._workspace = None

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way or waiting."""
        return self._current is not None or bool(self._queue)

    @property
    def hello(self) -> Mapping[str, Any] | None:
        """What the worker said of itself: versions of Python, torch and the software; None without one."""
        return None if self._session is None else self._session.hello

    # ---- the queue

    def _new(self, kind: str, fields: Mapping[str, Any], watcher: Watcher) -> Request:
        self._last_id += 1
        return Request(self._last_id, {"type": kind, "id": self._last_id, **fields}, watcher)

    def _submit(self, kind: str, fields: Mapping[str, Any], watcher: Watcher, volume: Volume | None = None) -> int:
        request = self._new(kind, fields, watcher)
        if volume is not None:
            request.volume = volume
            request.message["volume"] = volume_message(volume, request.id)
            try:
                folder = self._private_folder().path
            except InputError as error:
                watcher.failed(Failure("bad-input", str(error)))
                return request.id
            request.saving = Saving(volume, folder, request.id)
            self._savings = [saving for saving in self._savings if not saving.is_done] + [request.saving]
        self._queue.append(request)
        self._advance()
        return request.id

    def _private_folder(self) -> Workspace:
        if self._workspace is None:
            try:
                self._workspace = Workspace()
            except OSError as error:
                raise InputError(
                    "Nothing can be handed to the worker: no folder can be made for temporary files "
                    f"({error.strerror or error}); free some space or check permissions."
                ) from error
        return self._workspace

    def _advance(self) -> None:
        """Take the next request up; send the current one if the worker and its files are ready."""
        if self._current is None and self._queue:
            self._current = self._queue.popleft()
        request = self._current
        if request is None or request.sent:
            return
        if self._session is None:
            self._start_session()
            if request is not self._current:  # the start failed, and the request with it
                return
        if request.saving is not None and not request.saving.is_done:
            return
        if request.saving is not None and request.saving.error is not None:
            failure = _unsaved(request.saving.error)
            self._settle(request, lambda: request.watcher.failed(failure))
        elif self._session is not None and self._session.hello is not None:
            request.sent = True
            try:
                self._session.send(request.message)
            except ProtocolError as error:
                failure = Failure("bad-input", one_line(f"The request cannot be sent: {error}."))
                self._settle(request, lambda: request.watcher.failed(failure))

    def _start_session(self) -> None:
        try:
            launch = launch_of(self._private_folder().path, self._program, self._environment)
        except InputError as error:
            self._give_up(Failure("bad-input", str(error)))
            return
        if self._current is not None:
            self._current.starts += 1
        self._session = Session(self._make_process(), self)
        self._start_limit = time.monotonic() + START_LIMIT_S
        self._session.start(launch)

    def _give_up(self, failure: Failure) -> None:
        """There can be no worker: whatever waits for one fails."""
        lost = [*self._pings.values()]
        self._pings.clear()
        for ping in lost:
            ping.watcher.failed(failure)
        if (request := self._current) is not None:
            self._settle(request, lambda: request.watcher.failed(failure))

    def _settle(self, request: Request, tell: Callable[[], None]) -> None:
        """A request is over: make room, tell its watcher, go on with the next."""
        self._current = None
        self._clear_files()
        try:
            tell()
        finally:
            self._advance()

    def _clear_files(self) -> None:
        if self._workspace is not None:
            pending = [self._current, *self._queue]
            self._workspace.clear(keep={request.id for request in pending if request is not None})

    # ---- what the session tells

    def greeted(self, session: Session) -> None:
        for request in self._pings.values():
            session.send(request.message)
        self._advance()

    def said(self, line: str) -> None:
        self._log(line)

    def answered(self, session: Session, message: dict[str, Any]) -> None:
        number = message.get("id")
        request = self._pings.get(number) if number in self._pings else self._current
        if request is None or request.id != number or (not request.sent and request.id not in self._pings):
            raise ProtocolError(f"{message['type']} of a request that is not under way")
        if message["type"] == "progress":
            request.watcher.progress(Progress(message["stage"], message["fraction"], message["eta_s"]))
        elif message["type"] == "error":
            failure = Failure(message["kind"], message["message"], message["details"])
            self._conclude(request, lambda: request.watcher.failed(failure))
        elif message["type"] == "result" and request.kill_at is not None:  # it crossed with `cancel`
            self._conclude(request, lambda: request.watcher.failed(CANCELLED))
        elif message["type"] == "result":
            value = self._value(request, message["value"])
            self._conclude(request, lambda: request.watcher.done(value))
        else:
            raise ProtocolError(f"{message['type']} in the middle of things")

    def _conclude(self, request: Request, tell: Callable[[], None]) -> None:
        if self._pings.pop(request.id, None) is not None:
            tell()
        else:
            self._settle(request, tell)

    def _value(self, request: Request, value: Any) -> Any:
        """What the watcher is given.

        Raises
        ------
        ProtocolError
            If it is no answer to that request, or its files are not what it says.
        """
        kind = request.message["type"]
        try:
            check(value, f"value.{kind}")
            if kind == "score":
                assert request.volume is not None and self._workspace is not None
                return read_result_message(value["scored"], self._workspace.path, request.volume)
        except (SchemaError, ValueError, OSError) as error:
            raise ProtocolError(str(error)) from error
        (only,) = value.values()
        return only

    def ended(self, session: Session, failure: Failure | None) -> None:
        if session is not self._session:
            return
        self._session = None
        lost = [*self._pings.values()]
        self._pings.clear()
        request, why = self._current, failure or CANCELLED
        if request is not None and request.kill_at is not None:
            why = CANCELLED  # it was to stop, and has
        over = request is not None and (request.sent or request.starts >= _MOST_STARTS or session.hello is None)
        if failure is not None and not over and not lost:
            self._trouble(failure)
        for ping in lost:
            ping.watcher.failed(why)
        if request is not None and over:
            self._settle(request, lambda: request.watcher.failed(why))
        else:
            self._clear_files()


def _absolute(bundle: str | Path) -> str:
    return str(Path(bundle).absolute())


def _unsaved(error: Exception) -> Failure:
    reason = sentence_of(error) or one_line(f"{type(error).__name__}: {error}.")
    return Failure("bad-input", f"The image cannot be handed to the worker. {reason}")
