"""The system's shared libraries that Qt, VTK and off-screen drawing need, and the packages that hold them.

    python -m harness.libraries

installs the missing ones where that is possible (as root, with apt-get), and otherwise says which command does.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

#: By a library's name: the package of Debian and Ubuntu that holds it.
PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libz.so.1": "zlib1g",
    "libzstd.so.1": "libzstd1",
}

#: What draws for EGL: a graphics card's own library, or Mesa, whose software renderer is a file of its own.
CARD_DRIVER = "libEGL_nvidia.so.0"
MESA = {"libEGL_mesa.so.0": "libegl-mesa0"}
SOFTWARE_RENDERERS = ("dri/swrast_dri.so", "libgallium-*.so", "gallium-pipe/pipe_swrast.so")
SOFTWARE_RENDERER_PACKAGE = "libgl1-mesa-dri"
LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


class LibrariesMissing(ImportError):
    """Libraries of the system are missing; the message names them and the command that installs them."""


def missing() -> dict[str, str]:
    """The missing libraries, each with its package."""
    if sys.platform != "linux":
        return {}
    lacking = {library: package for library, package in PACKAGES.items() if not loads(library)}
    if not loads(CARD_DRIVER):
        lacking |= {library: package for library, package in MESA.items() if not loads(library)}
        if not has_software_renderer():
            lacking["Mesa's software renderer"] = SOFTWARE_RENDERER_PACKAGE
    return lacking


def loads(library: str) -> bool:
    """Whether the system's loader finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def has_software_renderer() -> bool:
    folders = [Path(folder) for folder in LIBRARY_FOLDERS]
    patterns = [prefix + name for name in SOFTWARE_RENDERERS for prefix in ("", "*/")]
    return any(next(folder.glob(pattern), None) for folder in folders for pattern in patterns)


def install_command(lacking: dict[str, str]) -> list[str]:
    """What installs the packages of missing libraries on Debian and Ubuntu."""
    return ["apt-get", "install", "-y", "--no-install-recommends", *sorted(set(lacking.values()))]


def sentence(lacking: dict[str, str]) -> str:
    """One sentence that names missing libraries and their remedy."""
    command = " ".join(install_command(lacking))
    return f"Slicer's modules cannot be opened: {', '.join(lacking)} missing; `sudo {command}` helps."


def require() -> None:
    """Go on only if nothing is missing.

    Raises
    ------
    LibrariesMissing
        Otherwise.
    """
    lacking = missing()
    if lacking:
        raise LibrariesMissing(sentence(lacking))


def install(lacking: dict[str, str]) -> bool:
    """Install the packages of missing libraries, if this process may.

    Returns
    -------
    Whether it could be tried and apt-get succeeded.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    print(f"Installing {', '.join(sorted(set(lacking.values())))} for the tests of the Slicer modules...", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    commands = (["apt-get", "update", "-qq"], install_command(lacking))
    return all(subprocess.run(command, env=environment).returncode == 0 for command in commands)


def main() -> int:
    lacking = missing()
    if lacking and install(lacking):
        lacking = missing()
    if lacking:
        print(sentence(lacking), file=sys.stderr)
    return int(bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
