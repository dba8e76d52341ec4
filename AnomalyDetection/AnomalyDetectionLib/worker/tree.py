"""End a worker together with everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys


def kill_tree(pid: int, worker: int | None = None) -> None:
    """Kill a worker that has not been waited for yet, and its descendants.

    The worker leads a process group (`child._become_a_group`), which is killed as a whole; on Windows `taskkill` walks
    the tree.  No package that lists processes is needed, which Slicer would not bundle.

    Parameters
    ----------
    pid
        The process that was started.
    worker
        The id that the worker gave of itself, another one where a launcher was started (PythonSlicer): that leads no
        group, and dies alone.
    """
    if sys.platform == "win32":
        command = ["taskkill", "/F", "/T", "/PID", str(pid)]
        subprocess.run(command, capture_output=True, creationflags=subprocess.CREATE_NO_WINDOW)
        return
    if worker is not None:
        _kill_group(worker)
    if not _kill_group(pid):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _kill_group(leader: int) -> bool:
    """Kill the group that a process leads; False where it leads none."""
    with contextlib.suppress(OSError):
        # Not before it leads its group: this program's own would be killed.  An id that a worker gave in a container is
        # that of somebody else here, who is of another session.
        if os.getpgid(leader) == leader and os.getsid(leader) == os.getsid(0):
            os.killpg(leader, signal.SIGKILL)
            return True
    return False
