"""The scoring worker in Slicer: a process of Qt's, so that the window never waits for it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from typing import Any

import qt

from AnomalyDetectionLib.worker.client import Client
from AnomalyDetectionLib.worker.session import Exit, Failure, Launch, Listener
from AnomalyDetectionLib.worker.tree import kill_tree

POLL_MS = 50

_running: set[QtProcess] = set()
"""Qt kills a process whose object goes away and waits for it, in the middle of anything: each is kept until its end."""


class QtProcess:
    """A worker process whose events come through Qt's event loop."""

    def __init__(self) -> None:
        self._process: Any = None
        self._listener: Listener | None = None

    def start(self, launch: Launch, listener: Listener) -> None:
        environment = qt.QProcessEnvironment.systemEnvironment()
        for name, value in launch.environment.items():
            environment.insert(name, value)
        self._listener = listener
        self._process = process = qt.QProcess()
        process.setProcessEnvironment(environment)
        process.connect("readyReadStandardOutput()", self._drain)
        process.connect("readyReadStandardError()", self._drain)
        process.connect("finished(int,QProcess::ExitStatus)", self._finish)
        process.connect("errorOccurred(QProcess::ProcessError)", self._note_error)
        _running.add(self)
        process.start(launch.program, list(launch.arguments))

    def write(self, data: bytes) -> None:
        if self._is_alive():
            self._process.write(data)

    def close_input(self) -> None:
        if self._is_alive():
            self._process.closeWriteChannel()

    def kill_tree(self, worker: int | None) -> None:
        if self._is_alive():
            pid = int(self._process.processId())
            if pid > 0:
                kill_tree(pid, worker)
            self._process.kill()

    def wait(self, seconds: float) -> bool:
        return not self._is_alive() or bool(self._process.waitForFinished(int(seconds * 1000)))

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.state() != qt.QProcess.NotRunning

    def _drain(self) -> None:
        process, listener = self._process, self._listener
        if process is None or listener is None:
            return
        if errors := bytes(process.readAllStandardError().data()):
            listener.logged(errors)
        if said := bytes(process.readAllStandardOutput().data()):
            listener.received(said)

    def _finish(self, code: int, status: Any) -> None:
        self._drain()
        listener = self._release()
        if listener is None:
            return
        if status == qt.QProcess.CrashExit and sys.platform != "win32":
            listener.finished(Exit(signal=int(code)))  # Qt puts the signal there
        else:
            listener.finished(Exit(code=int(code)))

    def _note_error(self, error: Any) -> None:
        if error == qt.QProcess.FailedToStart:
            reason = str(self._process.errorString()) if self._process is not None else ""
            listener = self._release()
            if listener is not None:
                listener.not_started(reason)

    def _release(self) -> Listener | None:
        """Let the Qt object go; returns the listener the first time."""
        listener, self._listener = self._listener, None
        process, self._process = self._process, None
        if process is not None:
            process.deleteLater()
        _running.discard(self)
        return listener


class QtWorker:
    """A scoring worker for a panel; `worker` says how to talk to `client`.

    Parameters
    ----------
    program
        The Python interpreter of the worker; None for Slicer's.
    environment
        Variables added to its environment.
    log
        Given every line for the log.
    trouble
        Given the failure of a worker that died while nothing was asked of it.
    """

    def __init__(
        self,
        *,
        program: str | None = None,
        environment: Mapping[str, str] | None = None,
        log: Callable[[str], None] = lambda line: None,
        trouble: Callable[[Failure], None] = lambda failure: None,
    ) -> None:
        self.client = Client(
            QtProcess,
            program=program or shutil.which("PythonSlicer") or sys.executable,
            environment=environment,
            log=log,
            trouble=trouble,
        )
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.client.poll)
        self._timer.start()

    def close(self) -> None:
        """End the worker, remove every file and drop what is pending; nothing may be asked of it any more."""
        self._timer.stop()
        self.client.close()
