"""Devices that are listed and devices that compute."""

from __future__ import annotations

import pytest
import torch

from AnomalyDetectionLib.models import devices
from AnomalyDetectionLib.models.devices import choose_device, kernel_problem


def test_the_processor_computes_and_a_device_that_does_not_says_why() -> None:
    assert kernel_problem(torch.device("cpu")) is None
    assert "meta" in str(kernel_problem(torch.device("meta")))  # it is there, and nothing can be computed on it


def test_automatic_leaves_a_graphics_card_alone_on_which_nothing_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(devices, "kernel_problem", lambda gpu: "no kernel image is available")
    choice = choose_device("auto", 1000)
    assert choice.device.type == "cpu" and "no kernel image is available" in str(choice.note)
