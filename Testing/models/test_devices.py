"""Devices that are listed and devices that compute."""

from __future__ import annotations

import pytest
import torch

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models import devices
from AnomalyDetectionLib.models.devices import choose_device, kernel_problem


def test_the_processor_computes_and_a_device_that_does_not_says_why() -> None:
    assert kernel_problem(torch.device("cpu")) is None
    assert "meta" in str(kernel_problem(torch.device("meta")))  # it is there, and nothing can be computed on it


def test_a_device_that_was_full_is_tried_again_and_one_that_computes_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[torch.device] = []
    ones = torch.ones

    def full_at_first(size: int, device: torch.device) -> torch.Tensor:
        tried.append(device)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return ones(size, device="cpu")

    monkeypatch.setattr(torch, "ones", full_at_first)
    monkeypatch.setattr(devices, "_computes", set())
    card = torch.device("cuda", 0)
    assert [kernel_problem(card) for _ in range(3)] == ["out of memory", None, None]
    assert tried == [card, card]


def test_automatic_leaves_a_graphics_card_alone_on_which_nothing_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(devices, "kernel_problem", lambda gpu: "no kernel image is available")
    choice = choose_device("auto", 1000)
    assert choice.device.type == "cpu" and "no kernel image is available" in str(choice.note)


def test_a_device_that_is_not_there_is_refused_with_those_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="choose auto, cpu, cuda, cuda:N or mps"):
        choose_device("gpu", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(InputError, match="choose --device mps or cpu"):
        choose_device("cuda", 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"choose --device cpu\."):
        choose_device("cuda:1", 0)
