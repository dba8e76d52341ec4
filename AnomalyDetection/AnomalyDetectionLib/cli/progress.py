"""How far long work has come: a bar on a terminal, a few lines in a log, or JSON lines for a program.

With `--progress json` standard output carries nothing but one JSON object a line (UTF-8), each with an `event`:

=========== ================================================================================================
event       further keys
=========== ================================================================================================
progress    `stage` (str), `case` (str or null), `fraction` (0...1 of the whole command, never falling; of the
            stage with `train`), `eta_s` (seconds left of the same, number or null while unknown)
training    of `train` by gradient: `epoch`, `step`, `steps`, `train_loss`, `validation_loss` (null within an
            epoch), `eta_s` (number or null), `memory_bytes` (the most so far); in the fold of a
            cross-conformal calibration also `fold` (from 1)
case        `case`, `status` ("done", "skipped", "failed"); where done: `folder`, `volume_score`, `abnormal`
            (bool), `p_value`, `findings`; where failed: `message`, one sentence
warning     `message`, one sentence; `case` (str or null)
error       `message`, one sentence; `exit_code` (int).  The last line of a command that fails
result      what the verb made; its keys are in the verb's help.  The last line of a command that ends its work
=========== ================================================================================================

Keys may be added, never taken away.  Warnings and errors for people go to standard error in every mode.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

MODES = ("auto", "bar", "plain", "json", "none")

_BAR_INTERVAL_S = 0.1
_JSON_INTERVAL_S = 0.2
_PLAIN_INTERVAL_S = 10.0


def add_progress_option(parser: argparse.ArgumentParser) -> None:
    """Add `--progress` to a verb that works for long."""
    parser.add_argument(
        "--progress",
        choices=MODES,
        default="auto",
        help="a bar, a few plain lines, JSON lines on standard output, or nothing; auto: a bar on a terminal",
    )


def write_event(event: str, stream: TextIO | None = None, **fields: Any) -> None:
    """Write one JSON line."""
    print(json.dumps({"event": event, **fields}, ensure_ascii=True), file=stream or sys.stdout, flush=True)


class Progress:
    """Reports the progress of `total` cases, one after the other.

    It is itself the callable (stage, fraction of the case) that the scorer wants.

    Parameters
    ----------
    mode
        One of `MODES`.
    total
        Number of cases.
    by_stage
        The fractions are those of the stage, not of the case: each stage starts at 0 again.
    out, err
        Streams; standard output and error by default.
    """

    def __init__(
        self,
        mode: str = "auto",
        total: int = 1,
        *,
        by_stage: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self._out, self._err = out or sys.stdout, err or sys.stderr
        terminal = self._err.isatty() and os.environ.get("TERM") != "dumb"
        self.mode = ("bar" if terminal else "plain") if mode == "auto" else mode
        self.total = max(1, total)
        self._by_stage = by_stage
        self._case: str | None = None
        self._index = 0
        self._fraction = 0.0
        self._started = time.monotonic()
        self._last_time = -1e9
        self._last_key: tuple[str | None, str] | None = None
        self._bar_shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wipe()

    def start_case(self, name: str | None, index: int) -> None:
        """Say which case the following stages belong to; `index` counts from 0."""
        self._case, self._index = name, index

    def __call__(self, stage: str, fraction: float) -> None:
        """Report that `stage` is at work and `fraction` (0...1) of the case is done."""
        if self._by_stage and self._last_key != (self._case, stage):
            self._fraction, self._started = 0.0, time.monotonic()
        overall = (self._index + min(1.0, max(0.0, fraction))) / self.total
        self._fraction = max(self._fraction, min(1.0, overall))
        now, key = time.monotonic(), (self._case, stage)
        since = now - self._last_time
        if self.mode == "json" and (since >= _JSON_INTERVAL_S or key != self._last_key):
            eta = self.seconds_left()
            fields = {"stage": stage, "case": self._case, "fraction": round(self._fraction, 4)}
            write_event("progress", self._out, **fields, eta_s=None if eta is None else round(eta, 1))
        elif self.mode == "bar" and (since >= _BAR_INTERVAL_S or fraction >= 1):
            self._draw(stage)
        elif self.mode == "plain" and (since >= _PLAIN_INTERVAL_S or (self._by_stage and key != self._last_key)):
            print(self._text(stage), file=self._err, flush=True)
        else:
            now = self._last_time
        self._last_time, self._last_key = now, key

    def seconds_left(self) -> float | None:
        """Time left at the mean pace so far, or None while there is too little to go by."""
        elapsed = time.monotonic() - self._started
        if self._fraction < 0.02 or elapsed < 0.5:
            return None
        return elapsed * (1 - self._fraction) / self._fraction

    def say(self, text: str) -> None:
        """A line for people on standard output (none in JSON mode)."""
        if self.mode != "json":
            self._wipe()
            print(text, file=self._out, flush=True)

    def warn(self, message: str, case: str | None = None) -> None:
        """A warning: standard error, and an event in JSON mode."""
        self.problem(f"warning: {case + ': ' if case else ''}{message}")
        self.event("warning", message=message, case=case)

    def problem(self, text: str) -> None:
        """A line for people on standard error."""
        self._wipe()
        print(text, file=self._err, flush=True)

    def event(self, event: str, **fields: Any) -> None:
        """A JSON line; nothing in the other modes."""
        if self.mode == "json":
            write_event(event, self._out, **fields)

    def result(self, fields: Mapping[str, Any]) -> None:
        """The last event of a command that has ended its work."""
        self.event("result", **fields)

    def _text(self, stage: str) -> str:
        left = self.seconds_left()
        parts = [f"{self._fraction:4.0%}", self._case or "", stage, "" if left is None else f"{_clock(left)} left"]
        return "  ".join(part for part in parts if part)

    def _draw(self, stage: str) -> None:
        text = self._text(stage)
        columns = shutil.get_terminal_size().columns
        width = min(30, columns - len(text) - 5)
        filled = round(self._fraction * width) if width > 0 else 0
        bar = f"[{'#' * filled}{'-' * (width - filled)}] " if width >= 8 else ""
        self._err.write("\r\x1b[K" + (bar + text)[: columns - 1])
        self._err.flush()
        self._bar_shown = True

    def _wipe(self) -> None:
        if self._bar_shown:
            self._err.write("\r\x1b[K")
            self._err.flush()
            self._bar_shown = False


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
