"""What the files of a cohort hold: read once, in a few threads, and remembered beside the manifest.

A file that several cases share (the slices of a volume, a mask) is read once for all of them, and each thread holds one
image and one mask at a time, so memory does not grow with the cohort.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.volume import Volume

from .facts import Contents, ImageFacts, mask_facts
from .manifest import Case, Cohort
from .remembered import Remembered, Stamps

WORKERS = min(4, os.cpu_count() or 1)
"""Threads; most of the time goes into unpacking, which runs outside Python's lock."""


def examine(
    cohort: Cohort,
    *,
    workers: int = WORKERS,
    remember: bool = True,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Contents]:
    """The contents of every case, by its name.

    What cannot be read or judged becomes a problem of its case.  Cases whose files do not exist are left out: the
    manifest's own checks name them.

    Parameters
    ----------
    workers
        Threads; that many images are in memory at once.
    remember
        Look up what an earlier call found for files of the same size and time, and note what this one finds, in
        `.NAME.checked.json` beside the manifest.
    progress
        Called with the share of the files that is done.
    """
    stamps = Stamps(cohort.path.parent)
    stamped = {case.case: stamps.of(case) for case in cohort}
    known = Remembered.beside(cohort.path) if remember else Remembered()
    found = {name: known.contents(name, stamp) for name, stamp in stamped.items() if stamp is not None}
    contents = {name: held for name, held in found.items() if held is not None}
    groups: dict[object, list[Case]] = defaultdict(list)
    for case in cohort:
        if stamped[case.case] is not None and case.case not in contents:
            groups[(tuple(case.images.items()), case.mask)].append(case)
    progress(0.0 if groups else 1.0)
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="examine")
    try:
        jobs = [pool.submit(_examine_together, cases) for cases in groups.values()]
        for done, job in enumerate(as_completed(jobs), start=1):
            for case, held in job.result():
                contents[case.case] = held
                if held.is_whole(case):  # the rest is tried again: a disk may have been away
                    known.note(case.case, stamped[case.case], held)
            known.save_now_and_then()
            progress(done / len(jobs))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        known.save()
    return {case.case: contents[case.case] for case in cohort if case.case in contents}


def _examine_together(cases: Sequence[Case]) -> list[tuple[Case, Contents]]:
    """Contents of cases with the same files: the slices of a volume, or a single case.

    What is wrong with a file stands with each of them: none can be used without it.
    """
    found = [Contents() for _ in cases]
    path = cases[0].mask
    try:
        mask = None if path is None else read_volume(path)
    except InputError as error:
        mask, found = None, [_with_problem(held, error) for held in found]
    for channel, source in cases[0].images.items():
        try:
            volume = read_volume(source.path, series=source.series)
        except InputError as error:
            found = [_with_problem(held, error) for held in found]
            continue
        found = [_with_image(held, case, channel, volume, mask) for held, case in zip(found, cases, strict=True)]
        mask = None  # all channels lie on the grid of the first
    return list(zip(cases, found, strict=True))


def _with_problem(held: Contents, error: InputError) -> Contents:
    return replace(held, problems=(*held.problems, str(error).rstrip(".")))


def _with_image(held: Contents, case: Case, channel: str, volume: Volume, mask: Volume | None) -> Contents:
    try:
        image = replace(volume if case.slice is None else volume.slice(case.slice), name=f"case {case.case}")
        image.check_values()
        held = replace(held, images={**held.images, channel: ImageFacts.of(image)})
        return held if mask is None else replace(held, mask=mask_facts(mask, image, case.slice))
    except InputError as error:
        return _with_problem(held, error)
