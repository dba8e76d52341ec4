"""Scoring of volumes of the scene by a worker, one at a time; knows no widgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import qt

from AnomalyDetectionLib.worker.client import Progress, Watcher
from AnomalyDetectionLib.worker.session import Failure

from .process import QtWorker
from .volumes import volume_of

if TYPE_CHECKING:
    from AnomalyDetectionLib.models.catalogue import Entry
    from AnomalyDetectionLib.scoring.explaining import Explanation
    from AnomalyDetectionLib.scoring.result import ScoreResult


class Listener(Protocol):
    """Whom a session tells what happens."""

    def on_progress(self, progress: Progress) -> None:
        """How far the score is."""

    def on_scored(self, volume_node: Any, result: ScoreResult) -> None:
        """A score is there; `volume_node` is None if the volume has left the scene meanwhile."""

    def on_failed(self, failure: Failure) -> None:
        """A score ended without a result, or the worker died while nothing was asked of it."""

    def on_said(self, line: str) -> None:
        """A line for the log."""


class Session:
    """Owns the worker; starts it with the first request, and a new one after `close`.

    Parameters
    ----------
    make_worker
        Makes a `QtWorker`, given `log` and `trouble`.
    """

    def __init__(self, listener: Listener, make_worker: Callable[..., QtWorker] = QtWorker) -> None:
        self._listener = listener
        self._make_worker = make_worker
        self._worker: QtWorker | None = None
        self._number: int | None = None
        self._node: Any = None  # itself, for its ID may be another's once the scene was closed

    @property
    def is_scoring(self) -> bool:
        """Whether a score is under way."""
        return self._number is not None

    @property
    def volume_is_gone(self) -> bool:
        """Whether the volume that is being scored has left the scene."""
        return self.is_scoring and self._node.GetScene() is None

    @property
    def pid(self) -> int | None:
        """The worker's process, once it has said hello."""
        hello = self._worker.client.hello if self._worker is not None else None
        return int(hello["pid"]) if hello else None

    def score(self, volume_node: Any, entry: Entry, device: str, explain: Explanation | None = None) -> None:
        """Begin to score a volume; the listener is told how it ends.

        Raises
        ------
        InputError
            If the node is no image that can be scored, or its voxels cannot be handed over.
        """
        if self._number is not None:
            raise RuntimeError("a score is under way")
        volume = volume_of(volume_node)
        self._node = volume_node
        self._number = 0  # `score` may fail before it returns
        watcher = Watcher(self._done, self._failed, self._progress)
        try:
            number = self._client().score(
                volume, entry.folder, watcher, device=device, case=volume_node.GetName(), explain=explain
            )
        except BaseException:
            self._number = self._node = None
            raise
        if self._number is not None:
            self._number = number
        # While the worker works: otherwise the first result, and the first drag of the threshold, would wait for it.
        qt.QTimer.singleShot(0, _import_simpleitk)

    def cancel(self) -> None:
        """Stop the score; the listener is told within about a second."""
        if self._number is not None and self._worker is not None:
            self._worker.client.cancel(self._number)

    def list_devices(self, done: Callable[[list[dict[str, Any]]], None]) -> None:
        """Ask the worker for this computer's devices (it imports torch)."""
        self._client().devices(Watcher(done, self._listener.on_failed))

    def close(self) -> None:
        """End the worker and drop what is pending without a word."""
        worker, self._worker = self._worker, None
        self._number = self._node = None
        if worker is not None:
            worker.close()

    def _client(self) -> Any:
        if self._worker is None:
            self._worker = self._make_worker(log=self._listener.on_said, trouble=self._listener.on_failed)
        return self._worker.client

    def _progress(self, progress: Progress) -> None:
        self._listener.on_progress(progress)

    def _done(self, result: ScoreResult) -> None:
        node = None if self.volume_is_gone else self._node
        self._number = self._node = None
        self._listener.on_scored(node, result)

    def _failed(self, failure: Failure) -> None:
        self._number = self._node = None
        self._listener.on_failed(failure)


def _import_simpleitk() -> None:
    import SimpleITK  # noqa: F401
