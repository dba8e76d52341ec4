"""`slicer-anomaly VERB ...`: finds the verb, runs it, and turns every failure into a sentence and an exit code.

Exit codes are stable: 0 done; 1 a fault of ours; 2 bad input, one sentence on standard error; 130 stopped with Ctrl-C;
143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import Cancelled, one_line, sentence_of

from .failures import fault_sentence
from .progress import write_event

PROGRAM = "slicer-anomaly"
DONE, FAULT, BAD_INPUT, STOPPED, TERMINATED = 0, 1, 2, 130, 143

PROVIDERS = ("AnomalyTrainingLib.cli", "AnomalyDetectionLib.cli")
"""Packages that may bring verbs (a `VERBS` table), in the order of the help.

The training package is looked up by name because it may be absent (scoring needs none of it) and because imports run
from training to detection only.  A table of names rather than entry points: scanning the metadata of every installed
distribution took 35 ms with warm disk caches and far longer with cold ones, a tenth of what the help may take.
"""

DEBUG_VARIABLE = "SLICER_ANOMALY_DEBUG"


class UsageError(Exception):
    """The command line itself is wrong; the sentence says how to mend it."""


class Parser(argparse.ArgumentParser):
    """An argparse parser that complains in one sentence and names the option that was probably meant."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        options = [option for action in self._actions for option in action.option_strings]
        hint = nearest(unknown.group(1).split("=")[0], options) if unknown else ""
        raise UsageError(f"{self.prog}: {message.rstrip('.')}{hint or '.'} See '{self.prog} --help'.")


def nearest(word: str, known: Sequence[str]) -> str:
    """', did you mean X' for the known word most like `word`, or ''."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""


def find_verbs() -> dict[str, tuple[str, str]]:
    """All verbs on this machine: name to (module, line of help)."""
    verbs: dict[str, tuple[str, str]] = {}
    for provider in PROVIDERS:
        package = provider.partition(".")[0]
        if importlib.util.find_spec(package) is not None:
            for name, entry in importlib.import_module(provider).VERBS.items():
                verbs.setdefault(name, entry)
    return verbs


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        The arguments after the program's name; None for those of the process.

    Returns
    -------
    int
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that cannot show "mm²" must not stop the work
            stream.reconfigure(errors="backslashreplace")
    args = argparse.Namespace(debug="--debug" in arguments, progress="auto")
    try:
        with _terminable():
            return _dispatch(arguments, args)
    except UsageError as error:
        return _fail(str(error), BAD_INPUT, args)
    except (KeyboardInterrupt, Cancelled):
        return _fail("Stopped; nothing half-written was left.", STOPPED, args)
    except _Terminated:
        return _fail("Stopped by the system; nothing half-written was left.", TERMINATED, args)
    except BrokenPipeError:  # the reader of our output (`| head`) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except Exception as error:
        if args.debug or os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        sentence = sentence_of(error)
        return _fail(sentence, BAD_INPUT, args) if sentence else _fail(fault_sentence(error), FAULT, args)


def _dispatch(arguments: list[str], args: argparse.Namespace) -> int:
    verbs = find_verbs()
    top = _top_parser(verbs)
    first = next((n for n, word in enumerate(arguments) if word != "--debug"), None)
    if first is None:
        top.print_help()
        return DONE
    name = arguments[first]
    try:
        if name.startswith("-"):
            top.parse_args(arguments, namespace=args)
            return DONE
        module = importlib.import_module(_module_of(name, verbs))
        parser = Parser(prog=f"{PROGRAM} {name}", description=module.__doc__, formatter_class=_HelpFormatter)
        module.add_arguments(parser)
        parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
        parser.parse_args(arguments[:first] + arguments[first + 1 :], namespace=args)
    except SystemExit as answered:  # argparse has answered: --help, --version
        return int(answered.code or 0)
    return int(module.run(args))


def _module_of(name: str, verbs: dict[str, tuple[str, str]]) -> str:
    if name not in verbs:
        hint = nearest(name, list(verbs)) or f"; the verbs are {', '.join(verbs)}."
        raise UsageError(f"{PROGRAM}: there is no verb {name!r}{hint}")
    return verbs[name][0]


_HelpFormatter = argparse.RawDescriptionHelpFormatter


def _top_parser(verbs: dict[str, tuple[str, str]]) -> Parser:
    width = max(len(name) for name in verbs)
    lines = "\n".join(f"  {name:<{width}}  {help_line}" for name, (_, help_line) in verbs.items())
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [--help] [--version] VERB ...",
        description="Calibrated anomaly maps of medical images. For research; not a medical device.",
        epilog=f"verbs:\n{lines}\n\n'{PROGRAM} VERB --help' explains a verb.\n"
        "exit codes: 0 done, 1 a fault of ours, 2 bad input, 130 stopped with Ctrl-C",
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}", help="show the version")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return parser


def _fail(sentence: str, code: int, args: argparse.Namespace) -> int:
    if args.progress == "json":
        write_event("error", message=one_line(sentence), exit_code=code)
    print(one_line(sentence), file=sys.stderr)
    return code


class _Terminated(BaseException):
    """SIGTERM came."""


def _raise_terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack, as Ctrl-C does, so that temporary files and locks go."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    previous = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
