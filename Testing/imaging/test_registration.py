"""Registration that is stopped: whoever stops it gets what he raised, wherever in the callback it comes."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest

from AnomalyDetectionLib.imaging import registration
from AnomalyDetectionLib.imaging.geometry import Grid
from AnomalyDetectionLib.imaging.registration import register_affine


class Stopped(BaseException):
    """What a signal's handler raises."""


def head(radius: float) -> tuple[np.ndarray, np.ndarray, Grid]:
    """An image with something in it, its foreground and grid, at 4 mm."""
    shape = (24, 26, 28)
    k, j, i = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    mask = k**2 + j**2 + i**2 < radius
    image = np.where(mask, 0.5 + 0.3 * np.sin(5 * k) * j, 0).astype(np.float32)
    return image, mask, Grid(shape, np.diag([4.0, 4.0, 4.0, 1.0]))


def test_a_listener_that_raises_stops_it_with_that_exception() -> None:
    def listener(share: float) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        register_affine(*head(0.6), *head(0.5), progress=listener)


def test_a_signal_at_the_first_step_of_the_callback_is_not_taken_for_a_failed_alignment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(number: int, frame: Any) -> None:
        raise Stopped

    class Interrupted(registration.sitk.ImageRegistrationMethod):
        def AddCommand(self, event: int, command: Any) -> int:
            def interrupted() -> None:
                signal.raise_signal(signal.SIGINT)
                command()

            return super().AddCommand(event, interrupted)

    monkeypatch.setattr(registration.sitk, "ImageRegistrationMethod", Interrupted)
    previous = signal.signal(signal.SIGINT, stop)
    try:
        with pytest.raises(Stopped):
            register_affine(*head(0.6), *head(0.5))
    finally:
        signal.signal(signal.SIGINT, previous)
