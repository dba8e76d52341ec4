"""Which package of the system holds a shared library that Qt or VTK misses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLX.so.0": "libglx0",
    "libOpenGL.so.0": "libopengl0",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
    "libXt.so.6": "libxt6",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libz.so.1": "zlib1g",
}


@contextmanager
def explain_missing_library() -> Iterator[None]:
    """Add to an ImportError for a shared library how to install it."""
    try:
        yield
    except ImportError as error:
        found = re.search(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object file", str(error))
        if found is None:
            raise
        package = PACKAGES.get(found[1])
        remedy = f"sudo apt install {package}" if package else f"apt-file search {found[1]}"
        raise ImportError(f"Slicer's modules cannot be opened: {found[1]} is missing; `{remedy}` helps.") from error
