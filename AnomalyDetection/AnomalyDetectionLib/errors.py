"""The kinds of failure the software tells apart, and the sentence each gets, whichever door it comes through."""

from __future__ import annotations

import errno
import re
from pathlib import Path

NO_SPACE = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC, errno.EFBIG}
NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}

_OUT_OF_MEMORY_TEXT = re.compile(r"out of memory|(?:can't|cannot|failed to) allocate memory|bad.?alloc", re.I)


class InputError(ValueError):
    """Bad input: one sentence that says what is wrong, in which file, and how to mend it.

    Every door shows the sentence as it is; the command line exits with 2.  Anything else that is
    raised is a fault of ours and exits with 1.
    """


class OutputError(InputError):
    """The results cannot be written (no space left, no permission, the folder is taken)."""


class Cancelled(Exception):
    """The user asked to stop; nothing half-written is left."""


def sentence_of(error: BaseException) -> str | None:
    """One sentence for a failure that the user can mend, or None for a fault of ours."""
    if isinstance(error, InputError):
        return one_line(str(error))
    if is_out_of_memory(error):
        return (
            "There is not enough memory for this image; close other programs, choose another device, "
            "or score a smaller image."
        )
    if stops_writing(error):
        assert isinstance(error, OSError)
        place = f" {Path(error.filename).name}" if error.filename else ""
        if error.errno in NO_SPACE:
            return f"There is no space left to write{place}; free some space or choose another folder, and try again."
        return f"There is no permission to write or read{place}; change its permissions or choose another folder."
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """True for MemoryError and for what torch and SimpleITK raise instead (told by name: torch is not imported)."""
    if isinstance(error, MemoryError) or any(c.__name__ == "OutOfMemoryError" for c in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and speaks_of_memory(str(error))


def speaks_of_memory(text: str) -> bool:
    """True for what libraries write when memory has run out, also in the last words of a process they abort."""
    return _OUT_OF_MEMORY_TEXT.search(text) is not None


def stops_writing(error: BaseException) -> bool:
    """True where every further case would fail likewise: a full disk, a quota, a folder that may not be written."""
    return isinstance(error, OSError) and error.errno in NO_SPACE | NO_PERMISSION


def one_line(text: str, limit: int = 600) -> str:
    """`text` on one line without control characters, cut to `limit` characters."""
    flat = re.sub(r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "?" for c in text)).strip()
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
