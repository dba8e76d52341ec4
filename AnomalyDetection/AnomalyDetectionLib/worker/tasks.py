"""What a worker does on request; importing this imports torch."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models.devices import choose_device, free_bytes, kernel_problem
from AnomalyDetectionLib.scoring.explaining import Explanation
from AnomalyDetectionLib.scoring.scorer import Scorer

from .arrays import read_volume_message, result_message
from .models import LoadedModels, loaded_message

LOADING = 0.1
"""Share of a score that loading its model takes, where it is not loaded yet."""
HANDING_OVER = 0.97
_INTERVAL_S = 0.1


class Reporter(Protocol):
    """Whom a task tells how it goes."""

    def check_cancelled(self, number: int) -> None:
        """Raise `Cancelled` if the request is no longer wanted."""

    def progress(self, number: int, stage: str, fraction: float, seconds_left: float | None) -> None:
        """Tell how far a request is."""

    def log(self, message: str) -> None:
        """A line for the log."""


class Tasks:
    """Answers requests with values, or raises.

    Parameters
    ----------
    folder
        The private folder.
    """

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        self._folder = folder
        self._reporter = reporter
        self._models = LoadedModels()

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """The value that answers a request.

        Raises
        ------
        InputError, Cancelled
            And whatever scoring raises.
        """
        kind = request["type"]
        if kind == "score":
            return {"scored": self._score(request)}
        if kind == "load":
            path = Path(request["bundle"]).resolve()
            return {"loaded": loaded_message(path, self._models.get(request["bundle"]))}
        if kind == "unload":
            return {"unloaded": self._models.forget(request["bundle"])}
        if kind == "models":
            return {"models": self._models.described()}
        return {"devices": devices(self._reporter.log)}

    def _score(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request["id"]
        choose_device(request["device"], 0)  # one that is not there is told before anything is read
        asked = request.get("explain")
        explain = None if asked is None else Explanation(asked["method"], asked["layer"])
        steps = Steps(self._reporter, number)
        model = self._models.get(request["bundle"], steps.loading)
        steps.loaded()
        try:
            volume = read_volume_message(request["volume"], self._folder)
        except InputError:
            raise
        except ValueError as error:
            raise RuntimeError(f"the image did not arrive: {error}") from error
        result = Scorer(model, request["device"]).score(
            volume, threshold=request["threshold"], case=request["case"], explain=explain, progress=steps.scoring
        )
        steps.handing_over()
        message = result_message(result, self._folder, number)
        self._reporter.check_cancelled(number)
        return message

    def clean_up(self) -> None:
        """Give memory back after a request that failed."""
        gc.collect()  # a traceback may have kept arrays in a cycle
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()


class Steps:
    """The progress of one score, and the places where it can be stopped."""

    def __init__(self, reporter: Reporter, number: int) -> None:
        self._reporter = reporter
        self._number = number
        self._begin = 0.0
        self._started = time.monotonic()
        self._fraction = 0.0
        self._last: tuple[str, float] = ("", -1e9)  # stage and time of the last report

    def loading(self) -> None:
        """The model is about to be read."""
        self._begin = LOADING
        self._report("loading the model", 0.0)

    def loaded(self) -> None:
        """The model is there: from here on time is taken."""
        self._started = time.monotonic()
        self._report("reading the image", self._begin)

    def scoring(self, stage: str, share: float) -> None:
        """What the scorer calls; raises `Cancelled` if that is wanted."""
        self._report(stage, self._begin + (HANDING_OVER - self._begin) * share)

    def handing_over(self) -> None:
        """The result is about to be written."""
        self._report("handing the result over", HANDING_OVER)

    def _report(self, stage: str, fraction: float) -> None:
        self._reporter.check_cancelled(self._number)
        self._fraction = min(1.0, max(self._fraction, fraction))
        now = time.monotonic()
        if stage != self._last[0] or now - self._last[1] >= _INTERVAL_S:
            self._last = (stage, now)
            self._reporter.progress(self._number, stage, self._fraction, self._seconds_left(now))

    def _seconds_left(self, now: float) -> float | None:
        """At the mean pace so far; None while there is too little to go by."""
        done, elapsed = self._fraction - self._begin, now - self._started
        if done < 0.02 or elapsed < 0.5:
            return None
        return elapsed * (1 - self._fraction) / done


def devices(log: Callable[[str], None]) -> list[dict[str, Any]]:
    """The devices scoring can run on; one on which nothing can be computed is left out, and the log says why."""
    found = [{"name": "cpu", "label": "CPU", "free_bytes": free_bytes(torch.device("cpu"))}]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.device("cuda", index)
        if problem := kernel_problem(device):
            log(f"{torch.cuda.get_device_name(index)} ({device}) cannot be used: {problem}")
            continue
        found.append(
            {"name": str(device), "label": torch.cuda.get_device_name(index), "free_bytes": free_bytes(device)}
        )
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "label": "Apple GPU", "free_bytes": None})
    return found
