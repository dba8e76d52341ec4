"""All checks of a cohort at once, those of its images and masks included.

`check_cohort` is what verbs call before they make anything; `inspect_cohort` also reports what is merely odd.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .contents import WORKERS, examine
from .facts import Contents, ImageFacts, MaskFacts
from .manifest import Case, Cohort, problems_error

SPACING_FACTOR = 1.5
"""Voxel sizes that differ by more than that between cases are pointed out."""

RADIOGRAPHS = ("CR", "DX", "XR")
"""Codes for one kind of image: computed, digital, and files that only say X-ray."""

Level = Literal["problem", "warning", "note"]
Examined = Sequence[tuple[Case, Contents]]

_MOST_NAMED = 4


@dataclass(frozen=True)
class Remark:
    """One thing to be said of a cohort.

    Attributes
    ----------
    level
        problem: the cohort cannot be used; warning: it can, but perhaps it is not what is meant; note: good to know.
    text
        One phrase with the cases' names.
    """

    level: Level
    text: str


@dataclass(frozen=True)
class Report:
    """What came out of the checks.

    Attributes
    ----------
    contents
        What each case's files hold, by case; cases whose files do not exist are left out.
    """

    cohort: Cohort
    contents: Mapping[str, Contents]
    remarks: tuple[Remark, ...]

    def texts(self, level: Level) -> list[str]:
        """The phrases of one level."""
        return [remark.text for remark in self.remarks if remark.level == level]


def check_cohort(
    cohort: Cohort,
    *,
    needs: Collection[int] | None = None,
    workers: int = WORKERS,
    remember: bool = True,
    skip_unreadable: int = 0,
    progress: Callable[[str, float], None] = lambda stage, fraction: None,
) -> Report:
    """Check a cohort before it is used; what is odd but usable is in `Report.texts("warning")`.

    Parameters
    ----------
    needs
        Labels (0 normal, 1 abnormal) without which the caller cannot do its work; a class that is absent and not
        needed is no matter then.  None: a class that is absent is a warning.
    workers
        Threads; that many images are in memory at once.
    remember
        Keep what is found beside the manifest, so that the next check need not read the same files (`contents`).
    skip_unreadable
        Up to so many cases whose files cannot be read are left out of `Report.cohort`, with a warning that names them;
        every slice of a volume that cannot be read counts.
    progress
        Called with the stage and its share that is done.

    Raises
    ------
    InputError
        Once, naming every problem found: files that cannot be read or hold nothing to judge; the same pixels in two
        splits, for two patients or with two labels; masks that are empty, lie elsewhere or are none; more than one
        modality; volumes mixed with single images; channels on several grids; a label that is needed and absent.
    """
    report = inspect_cohort(cohort, needs=needs, workers=workers, remember=remember, progress=progress)
    unreadable = [case for case in cohort if case.case in report.contents and report.contents[case.case].problems]
    if 0 < len(unreadable) <= skip_unreadable:
        dropped = {case.case for case in unreadable}
        rest = replace(cohort, cases=tuple(case for case in cohort if case.case not in dropped))
        report = inspect_cohort(rest, needs=needs, workers=workers, remember=remember, progress=progress)
        said = f"{named(unreadable)} cannot be read; {len(unreadable)} of {len(cohort)} cases are left out"
        report = replace(report, remarks=(Remark("warning", said), *report.remarks))
    if problems := report.texts("problem"):
        raise problems_error(cohort.path, "cohort", problems)
    return report


def inspect_cohort(
    cohort: Cohort,
    *,
    needs: Collection[int] | None = None,
    workers: int = WORKERS,
    remember: bool = True,
    progress: Callable[[str, float], None] = lambda stage, fraction: None,
) -> Report:
    """As `check_cohort`, with the problems among the remarks instead of raised."""

    def watch(share: float) -> None:
        progress("checking the cohort", share)

    contents = examine(cohort, workers=workers, remember=remember, progress=watch)
    examined = [(case, contents[case.case]) for case in cohort if case.case in contents]
    of_files = dict.fromkeys(problem for _, held in examined for problem in held.problems)  # of a shared file, once
    remarks = [Remark("problem", problem) for problem in of_files]
    for check in CHECKS:
        remarks += check(examined)
    if needs is None or 1 not in needs:
        remarks += _roles(examined)
    remarks += _classes(cohort.cases, needs)
    return Report(cohort, contents, tuple(remarks))


def check_judged(
    cohort: Cohort, cases: Sequence[Case], *, progress: Callable[[str, float], None] = lambda stage, fraction: None
) -> list[str]:
    """Check the cases of a cohort that are to be judged; returns the warnings.

    A file that cannot be read is no problem here: whoever judges case by case names it and goes on with the others.

    Raises
    ------
    InputError
        Once, naming every other problem that `check_cohort` would find in these cases.
    """
    report = inspect_cohort(replace(cohort, cases=tuple(cases)), progress=progress)
    of_files = {problem for held in report.contents.values() for problem in held.problems}
    if problems := [problem for problem in report.texts("problem") if problem not in of_files]:
        raise problems_error(cohort.path, "cohort", problems)
    return report.texts("warning")


def named(cases: Sequence[Case]) -> str:
    """'case a', or 'cases a, b, c, d and 7 more'."""
    shown = ", ".join(case.case for case in cases[:_MOST_NAMED])
    more = f" and {len(cases) - _MOST_NAMED} more" if len(cases) > _MOST_NAMED else ""
    return f"{'case' if len(cases) == 1 else 'cases'} {shown}{more}"


def _duplicates(examined: Examined) -> Iterator[Remark]:
    """Leaks that patient identifiers do not show."""
    holders: dict[str, list[Case]] = defaultdict(list)
    for case, held in examined:
        hashes = [facts.pixels for facts in held.images.values()]
        for pixels in dict.fromkeys(hashes):
            holders[pixels].append(case)
        if len(set(hashes)) < len(hashes):
            yield Remark("warning", f"{named([case])} holds the same pixels in two of its channels")
    reported = set()
    for cases in holders.values():
        names = tuple(case.case for case in cases)
        if len(cases) < 2 or names in reported:  # every channel of a copied case is a copy
            continue
        reported.add(names)
        apart = [word for word, values in _standing(cases) if len(values) > 1]
        if apart:
            yield Remark("problem", f"{named(cases)} hold the same pixels but differ in {' and '.join(apart)}")
        else:
            yield Remark("warning", f"{named(cases)} hold the same pixels")


def _standing(cases: Sequence[Case]) -> list[tuple[str, set[object]]]:
    return [
        ("split", {case.split for case in cases}),
        ("patient", {case.patient for case in cases}),
        ("label", {case.label for case in cases}),
    ]


def _masks(examined: Examined) -> Iterator[Remark]:
    masked = [(case, held.mask) for case, held in examined if held.mask is not None]
    for words, level, wrong in _MASK_RULES:
        if cases := [case for case, mask in masked if wrong(case, mask)]:
            yield Remark(level, f"{named(cases)}: {words}")
    for case, mask in masked:
        if mask.labels is None:
            yield Remark(
                "problem",
                f"{case.mask}: this is no mask, its values run from {mask.low:g} to {mask.high:g}; a mask is 0 outside "
                "the lesions and holds few whole numbers inside",
            )
    labels: dict[tuple[int, ...], list[Case]] = defaultdict(list)
    for case, mask in masked:
        if mask.labels is not None and len(mask.labels) > 1:
            labels[mask.labels].append(case)
    for values, cases in labels.items():
        yield Remark("note", f"{named(cases)}: the labels {', '.join(map(str, values))} of the mask all count alike")


_MASK_RULES: tuple[tuple[str, Level, Callable[[Case, MaskFacts], bool]], ...] = (
    (
        "the mask is empty, though the case is abnormal",
        "problem",
        lambda case, mask: case.label == 1 and mask.labels is not None and mask.painted == 0,
    ),
    (
        "the mask does not overlap the image; check that both are in the same space",
        "problem",
        lambda case, mask: case.slice is None and mask.painted > 0 and mask.on_image == 0,
    ),
    (
        "nothing of the mask lies on the slice, though it is abnormal",
        "warning",
        lambda case, mask: case.slice is not None and case.label == 1 and mask.painted > 0 and mask.on_image == 0,
    ),
    (
        "the mask marks something abnormal, though the case is normal",
        "problem",
        lambda case, mask: case.label == 0 and mask.on_image > 0,
    ),
    (
        "the mask lies on another grid than the image and is brought over by nearest neighbour",
        "note",
        lambda case, mask: case.slice is None and not mask.same_grid and mask.on_image > 0,
    ),
)
"""What is said, how serious it is, and when."""


def _modalities(examined: Examined) -> Iterator[Remark]:
    for channel in dict.fromkeys(channel for _, held in examined for channel in held.images):
        of: dict[str, list[Case]] = defaultdict(list)
        for case, held in examined:
            modality = held.images[channel].modality if channel in held.images else ""
            modality = modality or case.covariates.get("modality", "").upper()
            if modality:
                of["CR or DX" if modality in RADIOGRAPHS else modality].append(case)
        if len(of) > 1:
            parts = "; ".join(f"{modality}: {named(cases)}" for modality, cases in sorted(of.items()))
            yield Remark("problem", f"the images are of {len(of)} modalities ({parts}); a model is made for one")


def _shapes(examined: Examined) -> Iterator[Remark]:
    single = [case for case, held in examined if any(facts.is_single for facts in held.images.values())]
    volumes = [case for case, held in examined if any(not facts.is_single for facts in held.images.values())]
    if single and volumes:
        yield Remark("problem", f"volumes ({named(volumes)}) are mixed with single images ({named(single)})")


def _channels(examined: Examined) -> Iterator[Remark]:
    cases = []
    for case, held in examined:
        first, *others = held.images.values() or [None]
        if first is not None and not all(facts.grid.same_place(first.grid) for facts in others if facts is not None):
            cases.append(case)
    if cases:
        yield Remark("problem", f"{named(cases)}: the channels lie on different grids; resample them to one")


def spacings(examined: Examined) -> list[tuple[Case, tuple[float, ...]]]:
    """Voxel sizes in mm of the first channels that say them, along axes of more than one voxel, least first."""
    found = []
    for case, held in examined:
        facts: ImageFacts | None = next(iter(held.images.values()), None)
        if facts is not None and facts.spacing_known:
            sizes = np.linalg.norm(np.array(facts.ijk_to_ras)[:3, :3], axis=0)
            counts = facts.shape[::-1]
            found.append((case, tuple(sorted(float(size) for size, n in zip(sizes, counts, strict=True) if n > 1))))
    return found


def _mixed_spacing(examined: Examined) -> Iterator[Remark]:
    known = spacings(examined)
    axes = min((len(sizes) for _, sizes in known), default=0)
    for axis in range(axes):
        ordered = sorted(known, key=lambda item: item[1][axis])
        (least, fine), (most, coarse) = ordered[0], ordered[-1]
        if coarse[axis] > SPACING_FACTOR * fine[axis]:
            median = statistics.median(sizes[axis] for _, sizes in known)
            yield Remark(
                "warning",
                f"voxel sizes are mixed: from {size_text(fine)} mm ({named([least])}) to {size_text(coarse)} mm "
                f"({named([most])}), median {median:.3g} mm along that axis",
            )
            return


def size_text(sizes: Sequence[float]) -> str:
    """'1 × 1 × 3'."""
    return " × ".join(f"{size:.3g}" for size in sizes)


def _roles(examined: Examined) -> Iterator[Remark]:
    for split in ("train", "calibrate"):
        if cases := [case for case, _ in examined if case.split == split and case.label == 1]:
            yield Remark(
                "warning",
                f"{named(cases)}: abnormal in the split {split}, which detectors learn normals from; they are not used",
            )


def _classes(cases: Sequence[Case], needs: Collection[int] | None) -> Iterator[Remark]:
    if not cases:
        return
    present = {case.label for case in cases}
    for label, word in ((0, "normal"), (1, "abnormal")):
        if label in present or (needs is not None and label not in needs):
            continue
        if needs is None:
            yield Remark("warning", f"there is no {word} case: what is found can be judged on one class only")
        else:
            yield Remark("problem", f"there is no {word} case (label {label}), and this takes one")


CHECKS: tuple[Callable[[Examined], Iterator[Remark]], ...] = (
    _duplicates,
    _masks,
    _modalities,
    _shapes,
    _channels,
    _mixed_spacing,
)
"""Checks over what the files hold, in the order in which their remarks are reported."""
