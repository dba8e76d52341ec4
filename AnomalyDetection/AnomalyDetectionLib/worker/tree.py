"""End a worker together with everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys


def kill_tree(pid: int) -> None:
    """Kill a worker that has not been waited for yet, and its descendants.

    The worker leads a process group (`child._become_a_group`), which is killed as a whole; on Windows `taskkill` walks
    the tree.  No package that lists processes is needed, which Slicer would not bundle.
    """
    if sys.platform == "win32":
        command = ["taskkill", "/F", "/T", "/PID", str(pid)]
        subprocess.run(command, capture_output=True, creationflags=subprocess.CREATE_NO_WINDOW)
        return
    with contextlib.suppress(OSError):
        if os.getpgid(pid) == pid:  # not before it leads its group: this program's own would be killed
            os.killpg(pid, signal.SIGKILL)
            return
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
