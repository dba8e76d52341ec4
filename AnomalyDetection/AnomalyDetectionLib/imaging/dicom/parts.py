"""Slices of one series taken apart: orientations, sizes, image types, then time points, echoes and the like."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from .frame import Frame

DISTINCTIONS = (
    ("TemporalPositionIdentifier", "temporal position"),
    ("TemporalPositionIndex", "temporal position"),
    ("EchoTime", "echo time"),
    ("EffectiveEchoTime", "echo time"),
    ("EchoNumbers", "echo"),
    ("InversionTime", "inversion time"),
    ("FlipAngle", "flip angle"),
    ("DiffusionBValue", "b-value"),
    ("NominalCardiacTriggerDelayTime", "trigger time"),
    ("TriggerTime", "trigger time"),
    ("FrameReferenceTime", "frame time"),
    ("AcquisitionNumber", "acquisition"),
)
"""Attributes by which images at one position differ, in the order in which they are tried."""

_SAME_DIRECTION = 1e-3
_SAME_PLACE_MM = 1e-3


def split_slices(frames: Sequence[Frame]) -> list[tuple[str, list[Frame]]]:
    """Groups of slices that each make one volume, with a label that tells them apart.

    A series is first divided by size, pixel spacing, orientation, image type and stack; a group in which positions
    occur more than once is then divided by whatever attribute of `DISTINCTIONS` differs there.
    """
    groups: list[tuple[str, list[Frame]]] = []
    for label, group in _divided(frames, _looks(frames)):
        groups.extend(
            (", ".join(part for part in (label, further) if part), members) for further, members in _by_position(group)
        )
    return groups


def _looks(frames: Sequence[Frame]) -> Callable[[Frame], tuple[Hashable, ...]]:
    directions: list[np.ndarray] = []

    def direction(frame: Frame) -> int:
        if not frame.orientation:
            return -1
        vector = np.array(frame.orientation)
        for number, known in enumerate(directions):
            if np.abs(known - vector).max() < _SAME_DIRECTION:
                return number
        directions.append(vector)
        return len(directions) - 1

    known_directions: dict[tuple[float, ...], int] = {}

    def look(frame: Frame) -> tuple[Hashable, ...]:
        if frame.orientation not in known_directions:
            known_directions[frame.orientation] = direction(frame)
        return (
            frame.header.rows,
            frame.header.columns,
            tuple(round(size, 4) for size in frame.spacing),
            known_directions[frame.orientation],
            frame.image_type[2:],
            frame.words("StackID") if frame.header.frame_count > 1 else (),
        )

    return look


def _divided(frames: Sequence[Frame], key: Callable[[Frame], tuple[Hashable, ...]]) -> list[tuple[str, list[Frame]]]:
    groups: dict[tuple[Hashable, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    return [(_appearance(members[0]), members) for members in groups.values()]


def _appearance(frame: Frame) -> str:
    kind = "/".join(word for word in frame.image_type[2:] if word).lower()
    return " ".join(part for part in (_plane(frame), kind) if part)


def _plane(frame: Frame) -> str:
    if not frame.orientation:
        return "without position"
    normal = np.abs(np.cross(frame.orientation[:3], frame.orientation[3:]))
    name = ("sagittal", "coronal", "axial")[int(np.argmax(normal))]
    return name if normal.max() > 0.9 else f"oblique {name}"


def _by_position(frames: Sequence[Frame]) -> list[tuple[str, list[Frame]]]:
    """Divide slices that share positions by the first attribute that explains why."""
    repeats = _repeats(frames)
    if repeats <= 1:
        return [("", list(frames))]
    for keyword, title in DISTINCTIONS:
        groups: dict[tuple[float, ...], list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[frame.numbers(keyword)].append(frame)
        # An attribute that changes from slice to slice (a trigger time in ms) has more values than there are repeats.
        if 1 < len(groups) <= repeats and all(_repeats(group) < repeats for group in groups.values()):
            found: list[tuple[str, list[Frame]]] = []
            for values, group in sorted(groups.items()):
                label = f"{title} {values[0]:g}" if values else f"no {title}"
                found.extend(
                    (", ".join(part for part in (label, further) if part), members)
                    for further, members in _by_position(group)
                )
            return found
    return [("", list(frames))]


def _repeats(frames: Sequence[Frame]) -> int:
    """How often the commonest position occurs."""
    placed = [frame for frame in frames if frame.position and frame.orientation]
    if not placed:
        return 0
    positions = np.round(np.array([frame.position for frame in placed]) / _SAME_PLACE_MM).astype(np.int64)
    return max(Counter(map(tuple, positions.tolist())).values())
