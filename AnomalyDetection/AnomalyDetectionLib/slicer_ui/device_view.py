"""The list of devices, which only the worker knows, for only the worker may import torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _


class DeviceView:
    """Automatic and the processor until the worker was asked for more.

    Parameters
    ----------
    chosen
        Called with the name of the device that the user chose.
    asked
        Called when the user wants to know which there are.
    """

    def __init__(self, ui: Any, chosen: Callable[[str], None], asked: Callable[[], None]) -> None:
        self._combo = ui.deviceCombo
        self._chosen = chosen
        self._filling = False
        self._devices: list[tuple[str, str]] = [("cpu", _("Processor (CPU)"))]
        self._name = "auto"
        self._refill()
        self._combo.connect("currentIndexChanged(int)", lambda index: self._choose())
        ui.devicesButton.connect("clicked()", lambda: asked())

    def fill(self, devices: list[dict[str, Any]]) -> None:
        """Offer the devices that the worker named."""
        self._devices = [(device["name"], device_label(device)) for device in devices]
        self._refill()

    def show(self, name: str) -> None:
        """Select a device; one that is not in the list (yet) is added by its name."""
        self._name = name
        self._refill()

    def _refill(self) -> None:
        self._filling = True
        offered = [("auto", _("Automatic")), *self._devices]
        if self._name not in [name for name, label in offered]:
            offered.append((self._name, self._name))
        self._combo.clear()
        for name, label in offered:
            self._combo.addItem(label, name)
        self._combo.setCurrentIndex(self._combo.findData(self._name))
        self._filling = False

    def _choose(self) -> None:
        if not self._filling:
            self._name = str(self._combo.currentData)
            self._chosen(self._name)


def device_label(device: dict[str, Any]) -> str:
    """A device with its free memory, such as "Tesla T4 (cuda:0, 14.8 GB free)"."""
    facts = [] if device["name"] == "cpu" else [device["name"]]
    if device["free_bytes"] is not None:
        facts.append(_("{size:.1f} GB free").format(size=device["free_bytes"] / 1e9))
    return f"{device['label']} ({', '.join(facts)})" if facts else str(device["label"])
