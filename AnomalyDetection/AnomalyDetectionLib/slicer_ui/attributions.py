"""Explanations in the scene: a volume of its own, with warm colours and a legend that says what it is not."""

from __future__ import annotations

import json
from typing import Any

import slicer
from slicer.i18n import tr as _

from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.explaining import LABEL, Attribution

from .colours import add_heat, add_legend, paint_heat
from .volumes import add_in_place_of

ATTRIBUTION, ATTRIBUTION_HEAT = "AnomalyDetection.Attribution", "AnomalyDetection.AttributionHeat"
"""Roles of the references from a volume's rarity map to its attribution, and to the colours of that."""
FACTS = "AnomalyDetection.AttributionFacts"
"""Attribute of an attribution's volume: method and layer."""

SHOWN_FROM = 0.2
"""Share of the peak below which nothing is painted: a map that covers all of the image shows nothing of it."""

LABELS = 5


def add_attribution(score: Any, volume_node: Any, attribution: Attribution) -> None:
    """Put the map into the scene, in the place of the scored volume; its rarity map refers to it from now on."""
    name = volume_node.GetName()
    node = add_in_place_of(volume_node, attribution.map.array, _("{volume} - attribution").format(volume=name))
    node.SetAttribute(FACTS, json.dumps(attribution.facts(), ensure_ascii=False))
    node.SetDescription(f"{attribution.title}: {attribution.label}")
    top = attribution.peak or 1.0
    heat = add_heat(_("{volume} - attribution colours").format(volume=name), SHOWN_FROM * top, top)
    paint_heat(node, heat, SHOWN_FROM * top, top)
    legend = add_legend(node)
    legend.SetTitleText(LABEL)  # not translated: it is to be the same wherever the map goes
    legend.SetNumberOfLabels(LABELS)
    legend.SetLabelFormat("%.2g")
    score.SetNodeReferenceID(ATTRIBUTION, node.GetID())
    score.SetNodeReferenceID(ATTRIBUTION_HEAT, heat.GetID())


def is_attribution(node: Any) -> bool:
    """Whether a volume is the map of an explanation, and so no scan."""
    return node.GetAttribute(FACTS) is not None


def attribution_of(node: Any, place: Volume) -> Attribution:
    """The attribution that a volume of the scene holds.

    Parameters
    ----------
    place
        A volume of the same voxels, whose geometry is the attribution's.
    """
    facts = json.loads(node.GetAttribute(FACTS))
    found = place.with_array(slicer.util.arrayFromVolume(node), units="attribution", name=node.GetName())
    return Attribution(found, facts["method"], facts["layer"])
