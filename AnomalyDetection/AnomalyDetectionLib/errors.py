"""The two kinds of failure the software tells apart."""


class InputError(ValueError):
    """Bad input: one sentence that says what is wrong, in which file, and how to mend it.

    Every door shows the sentence as it is; the command line exits with 2.  Anything else that is
    raised is a fault of ours and exits with 1.
    """


class OutputError(InputError):
    """The results cannot be written (no space left, no permission, the folder is taken)."""


class Cancelled(Exception):
    """The user asked to stop; nothing half-written is left."""
