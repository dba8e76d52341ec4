"""Which device to compute on, and whether the work fits into it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from AnomalyDetectionLib.errors import InputError, one_line

RESERVE = 0.9
"""Share of the free memory that may be planned with; the rest is for the allocator and other programs."""


@dataclass(frozen=True)
class Choice:
    """A device, and why it was taken where "auto" did not get the first choice."""

    device: torch.device
    note: str | None = None


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device in bytes, or None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


_computes: set[torch.device] = set()
"""Devices on which something was computed once; one that is full today may be free in a minute and is tried again."""


def kernel_problem(device: torch.device) -> str | None:
    """Why nothing can be computed on a device that is there, or None where something can.

    A torch that was built for other graphics cards lists a new one, and fails at the first kernel.
    """
    if device in _computes:
        return None
    try:
        total = (torch.ones(8, device=device) * 2).sum().item()
    except RuntimeError as error:
        return one_line(str(error), 200)
    if total != 16:
        return f"2 × 8 gave {total}"
    _computes.add(device)
    return None


def choose_device(requested: str, needed_bytes: int) -> Choice:
    """The device to score on.

    Parameters
    ----------
    requested
        "auto" (the CUDA device with the most free memory if the work fits there, otherwise the CPU), "cpu", "cuda",
        "cuda:1", "mps".
    needed_bytes
        Estimate of the working memory.

    Raises
    ------
    InputError
        If a device asked for by name is not there, or the work fits nowhere.
    """
    if requested == "auto":
        return _automatic(needed_bytes)
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise InputError(f"There is no device {requested!r}; choose auto, cpu, cuda, cuda:N or mps.") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            others = "mps or cpu" if torch.backends.mps.is_available() else "cpu"
            raise InputError(
                f"CUDA cannot be used here (no GPU, no driver, or PyTorch built without it); choose --device {others}."
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise InputError(f"There is no {requested}; this machine has {torch.cuda.device_count()} CUDA device(s).")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("No Apple GPU can be used here; choose --device cpu.")
    elif device.type != "cpu":
        raise InputError(f"Scoring runs on cpu, cuda or mps, not on {requested!r}.")
    _check_fits(device, needed_bytes)
    return Choice(device)


def _automatic(needed_bytes: int) -> Choice:
    note = None
    if torch.cuda.is_available():
        gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        problems = {gpu: kernel_problem(gpu) for gpu in gpus}
        working = [gpu for gpu in gpus if problems[gpu] is None]
        if not working:
            note = f"The GPU cannot be used ({problems[gpus[0]]}); the CPU is used instead."
            return _on_cpu(needed_bytes, note)
        best = max(working, key=lambda gpu: free_bytes(gpu) or 0)
        if needed_bytes <= RESERVE * (free_bytes(best) or 0):
            return Choice(best)
        free = _gb(free_bytes(best) or 0)
        note = f"The GPU has {free} free and {_gb(needed_bytes)} are needed; the CPU is used instead."
    return _on_cpu(needed_bytes, note)


def _on_cpu(needed_bytes: int, note: str | None) -> Choice:
    cpu = torch.device("cpu")
    _check_fits(cpu, needed_bytes)
    return Choice(cpu, note)


def _check_fits(device: torch.device, needed_bytes: int) -> None:
    free = free_bytes(device)
    if free is not None and needed_bytes > RESERVE * free:
        raise InputError(
            f"About {_gb(needed_bytes)} of memory are needed and {_gb(free)} are free on {device}; "
            "close other programs, crop the image or use a machine with more memory."
        )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
