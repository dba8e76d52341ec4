"""A template is the average of its normals, wherever their scanners put the origin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import simulated

from AnomalyDetectionLib.imaging.template import Template, build_template
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.prepare import as_normal

SPEC = InputSpec("volume", ("MR",), "mr-robust", grid="template")


def template_of(*volumes: Volume) -> Template:
    return build_template(lambda: (as_normal(volume, SPEC) for volume in volumes), (4.0, 4.0, 4.0))


def moved(volume: Volume, along_s: float) -> Volume:
    """The same scan with its origin elsewhere."""
    affine = volume.ijk_to_ras.copy()
    affine[2, 3] += along_s
    return replace(volume, ijk_to_ras=affine)


@pytest.mark.parametrize("shifts", [(0.0, 60.0, 60.0), (60.0, 0.0, -90.0)])
def test_the_whole_head_is_in_the_template_wherever_the_scans_have_their_origin(shifts: tuple[float, ...]) -> None:
    heads = [simulated.head(subject) for subject in range(3)]
    together = template_of(*heads)
    apart = template_of(*(moved(head, shift) for head, shift in zip(heads, shifts, strict=True)))
    both = (together.foreground & apart.foreground).sum()
    assert 2 * both / (together.foreground.sum() + apart.foreground.sum()) > 0.99
    edges = [apart.foreground.take(end, axis).any() for axis in range(3) for end in (0, -1)]
    assert not any(edges), "the head is cut by no side of the box"
    assert np.abs(apart.image - together.image)[together.foreground & apart.foreground].mean() < 0.01


def test_a_template_has_the_average_size_of_its_normals_and_the_place_of_the_first() -> None:
    first = simulated.head(0)
    affine = first.ijk_to_ras @ np.diag([1.2, 1.2, 1.2, 1.0])
    larger = replace(first, ijk_to_ras=affine)
    alone, averaged = template_of(first), template_of(first, larger)
    assert averaged.foreground.sum() / alone.foreground.sum() == pytest.approx(1.1**3, rel=0.03)
    centres = [np.argwhere(found.foreground).mean(axis=0) for found in (alone, averaged)]
    assert np.abs(centres[1] - centres[0]).max() < 0.5, "in voxels, of one and the same grid"
