"""A whole cohort of phantoms on disk, with its manifest."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from AnomalyDetectionLib.errors import InputError, OutputError
from AnomalyDetectionLib.imaging.write import atomically, write_labels, write_volume

from ..cohorts.manifest import DEFAULT_CHANNEL, Case, ImageSource, write_manifest
from .anatomy import ANATOMIES
from .contrast import contrast_named
from .lesions import KINDS, LesionRequest
from .phantom import VERSION, check_spacing, synthesise

FOLDER = "volumes"
"""Folder of the images beside the manifest."""

SETTINGS = "phantom.json"
"""What the images of that folder were made with; a run with other settings must not mix its own with them."""

MOST_SUBJECTS = 10_000


@dataclass(frozen=True)
class PhantomSettings:
    """What all volumes of a cohort have in common.

    Attributes
    ----------
    contrast
        A name in `contrast.CONTRASTS`.
    spacing
        mm along (right, anterior, superior).
    """

    contrast: str = "t1"
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)
    seed: int = 0
    anatomy: str = "icbm152"

    def __post_init__(self) -> None:
        contrast_named(self.contrast)
        check_spacing(self.spacing)
        if self.anatomy not in ANATOMIES:
            raise InputError(f"There is no anatomy {self.anatomy!r}; phantoms are made from {', '.join(ANATOMIES)}.")
        if self.seed < 0:
            raise InputError(f"The seed is a whole number from 0, not {self.seed}.")


@dataclass(frozen=True)
class _Job:
    subject: int
    lesion: LesionRequest | None
    case: Case


def make_phantom_cohort(
    manifest: str | Path,
    *,
    subjects: int,
    settings: PhantomSettings,
    lesions: Sequence[LesionRequest] = (),
    split: Callable[[Sequence[Case]], Sequence[Case]] | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Case, ...]:
    """Write volumes, lesion masks and manifest of a phantom cohort; volumes already there are kept.

    Parameters
    ----------
    manifest
        The CSV to write; images go into the folder `volumes` beside it.
    subjects
        Number of normals, subjects 1 ... n.
    lesions
        One further subject for each, numbered from n + 1.
    split
        Gives the cases their splits, normals first, such as `splits.assign_splits`; None leaves them without.
    workers
        Processes; more than one must be started from a script with an ``if __name__ == "__main__"`` guard.
    progress
        Called with the number of volumes done and wanted.

    Raises
    ------
    InputError
        If a setting is unusable, or the folder holds volumes made with other settings.
    OutputError
        If the volumes cannot be written.
    """
    manifest = Path(manifest).absolute()
    folder = manifest.parent / FOLDER
    if not 1 <= subjects + len(lesions) <= MOST_SUBJECTS:
        raise InputError(f"A phantom cohort has 1 to {MOST_SUBJECTS} subjects, not {subjects + len(lesions)}.")
    if unknown := [request.kind for request in lesions if request.kind not in KINDS]:
        raise InputError(f"There is no kind of lesion {unknown[0]!r}; known are {', '.join(KINDS)}.")
    jobs = list(_jobs(folder, subjects, settings, lesions))
    cases: Sequence[Case] = [job.case for job in jobs]
    if split is not None:
        cases = split(cases)
    try:
        _claim(folder, settings)
        _make_all(jobs, settings, workers, progress)
    except OSError as error:
        raise OutputError(f"{folder}: the phantoms cannot be written ({error.strerror or error}).") from error
    write_manifest(cases, manifest)
    return tuple(cases)


def _jobs(folder: Path, subjects: int, settings: PhantomSettings, lesions: Sequence[LesionRequest]) -> Iterator[_Job]:
    requests = [*[None] * subjects, *lesions]
    for subject, lesion in enumerate(requests, start=1):
        patient = f"sub-{subject:04d}"
        stem = f"{patient}_{lesion.tag if lesion else 'normal'}_{settings.contrast}"
        case = Case(
            case=f"{patient}-{lesion.kind}" if lesion else patient,
            patient=patient,
            images={DEFAULT_CHANNEL: ImageSource(folder / f"{stem}.nii.gz")},
            label=int(lesion is not None),
            mask=folder / f"{stem}_mask.nii.gz" if lesion else None,
            covariates={"contrast": settings.contrast} | ({"lesion": lesion.kind} if lesion else {}),
        )
        yield _Job(subject, lesion, case)


def _claim(folder: Path, settings: PhantomSettings) -> None:
    """Note what the folder's volumes are made with, or refuse where others lie."""
    wanted = {"version": VERSION, "seed": settings.seed, "anatomy": settings.anatomy, "spacing": list(settings.spacing)}
    path = folder / SETTINGS
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: this is not a record of phantoms; choose another folder.") from error
        if found != wanted:
            raise InputError(
                f"{folder}: it holds phantoms made with other settings; choose another folder or delete it."
            )
        return
    atomically(path, lambda temporary: _write_text(temporary, json.dumps(wanted, indent=2) + "\n"))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _make_all(
    jobs: Sequence[_Job], settings: PhantomSettings, workers: int, progress: Callable[[int, int], None]
) -> None:
    missing = [job for job in jobs if not _complete(job)]
    done = len(jobs) - len(missing)
    progress(done, len(jobs))
    if min(workers, len(missing)) <= 1:
        for job in missing:
            _make(job, settings)
            done += 1
            progress(done, len(jobs))
        return
    # spawn: forked children of a process that has used torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(missing)), context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        waiting = [pool.submit(_make, job, settings) for job in missing]
        try:
            for future in as_completed(waiting):
                future.result()
                done += 1
                progress(done, len(jobs))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _complete(job: _Job) -> bool:
    """Whether the files are there; the image is written last and both under temporary names, so then they are whole."""
    return job.case.image.exists() and (job.case.mask is None or job.case.mask.exists())


def _make(job: _Job, settings: PhantomSettings) -> None:
    phantom = synthesise(
        ANATOMIES[settings.anatomy](),
        job.subject,
        contrast=settings.contrast,
        spacing=settings.spacing,
        seed=settings.seed,
        lesion=job.lesion,
    )
    if job.case.mask is not None and phantom.mask is not None:
        write_labels(phantom.mask.astype(np.uint8), phantom.volume.grid, job.case.mask)
    write_volume(replace(phantom.volume, name=job.case.case), job.case.image)
