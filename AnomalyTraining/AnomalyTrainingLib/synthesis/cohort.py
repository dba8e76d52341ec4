"""A whole cohort of phantoms on disk, with its manifest."""

from __future__ import annotations

import contextlib
import hashlib
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
from .anatomy import ANATOMIES, Anatomy
from .contrast import contrast_named
from .heads import head, head_files, head_name
from .lesions import KINDS, LesionRequest
from .phantom import VERSION, check_spacing, synthesise
from .plaque_shapes import mask_files

FOLDER = "volumes"
"""Folder of the images beside the manifest."""

SETTINGS = "phantom.json"
"""What the images of that folder were made with; a run with other settings must not mix its own with them."""

MOST_SUBJECTS = 10_000


def is_phantom(case: Case) -> bool:
    """Whether the image was made by `make_phantom_cohort`, which notes its settings beside the images."""
    return (case.image.parent / SETTINGS).is_file()


@dataclass(frozen=True)
class PhantomSettings:
    """What all volumes of a cohort have in common.

    Attributes
    ----------
    contrast
        A name in `contrast.CONTRASTS`.
    spacing
        mm along (right, anterior, superior).
    anatomy
        A name in `anatomy.ANATOMIES`, or a label map of a head or a folder of them.
    stripped
        Whether heads are shown without skull and scalp.
    plaque_shapes
        Masks of real plaques, as `plaque_shapes.mask_files` finds them, whose shapes the plaques have; None makes
        ellipsoids.
    """

    contrast: str = "t1"
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)
    seed: int = 0
    anatomy: str = "icbm152"
    stripped: bool = True
    plaque_shapes: str | None = None

    def __post_init__(self) -> None:
        contrast_named(self.contrast)
        check_spacing(self.spacing)
        if not self.stripped and self.anatomy in ANATOMIES:
            raise InputError(f"{self.anatomy} is a brain without a head; its phantoms are skull-stripped.")
        if self.seed < 0:
            raise InputError(f"The seed is a whole number from 0, not {self.seed}.")

    @property
    def heads(self) -> tuple[Path, ...]:
        """The label maps the subjects are spread over; none where the anatomy has a name."""
        return () if self.anatomy in ANATOMIES else head_files(self.anatomy)


@dataclass(frozen=True)
class _Job:
    subject: int
    lesion: LesionRequest | None
    case: Case
    head: Path | None

    def anatomy(self, settings: PhantomSettings) -> Anatomy:
        return ANATOMIES[settings.anatomy]() if self.head is None else head(self.head)


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
    heads = settings.heads
    for subject, lesion in enumerate([*[None] * subjects, *lesions], start=1):
        # One after the other, so that every anatomy has as many normals, and as many lesions, as any other.
        head = heads[(subject - 1) % len(heads)] if heads else None
        patient = f"sub-{subject:04d}"
        stem = f"{patient}_{lesion.tag if lesion else 'normal'}_{settings.contrast}"
        case = Case(
            case=f"{patient}-{lesion.kind}" if lesion else patient,
            patient=patient,
            images={DEFAULT_CHANNEL: ImageSource(folder / f"{stem}.nii.gz")},
            label=int(lesion is not None),
            mask=folder / f"{stem}_mask.nii.gz" if lesion else None,
            covariates={"contrast": settings.contrast}
            | ({"anatomy": head_name(head)} if head else {})
            | ({"lesion": lesion.kind} if lesion else {}),
        )
        if lesion and lesion.kind == "plaques" and settings.plaque_shapes:
            lesion = replace(lesion, options={**lesion.options, "shapes": settings.plaque_shapes})
        yield _Job(subject, lesion, case, head)


def _claim(folder: Path, settings: PhantomSettings) -> None:
    """Note what the folder's volumes are made with, or refuse where others lie."""
    wanted = _record(settings)
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


def _record(settings: PhantomSettings) -> dict[str, object]:
    """What decides the voxels besides subject, contrast and lesion.  Files count by content, wherever they lie."""
    heads = settings.heads
    record: dict[str, object] = {
        "version": VERSION,
        "seed": settings.seed,
        "anatomy": {head_name(path): _digest(path) for path in heads} if heads else settings.anatomy,
        "spacing": list(settings.spacing),
    }
    if heads:
        record["stripped"] = settings.stripped
    if settings.plaque_shapes:
        record["plaque_shapes"] = [_digest(path) for path in mask_files(settings.plaque_shapes)]
    return record


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror or error}).") from error


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _make_all(
    jobs: Sequence[_Job], settings: PhantomSettings, workers: int, progress: Callable[[int, int], None]
) -> None:
    missing = sorted((job for job in jobs if not _complete(job)), key=lambda job: (str(job.head or ""), job.subject))
    done = len(jobs) - len(missing)
    progress(done, len(jobs))
    workers = min(workers, len(missing))
    if workers <= 1:
        for job in missing:
            _make(job, settings)
            done += 1
            progress(done, len(jobs))
        return
    # spawn: forked children of a process that has used torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        # A process each with a run of jobs in the order of the heads, so that it loads its share of them, each once.
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=(1,)))
            for _ in range(workers)
        ]
        waiting = [
            pools[number * workers // len(missing)].submit(_make, job, settings) for number, job in enumerate(missing)
        ]
        try:
            for future in as_completed(waiting):
                future.result()
                done += 1
                progress(done, len(jobs))
        except BaseException:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)
            raise


def _complete(job: _Job) -> bool:
    """Whether the files are there; the image is written last and both under temporary names, so then they are whole."""
    return job.case.image.exists() and (job.case.mask is None or job.case.mask.exists())


def _make(job: _Job, settings: PhantomSettings) -> None:
    phantom = synthesise(
        job.anatomy(settings),
        job.subject,
        contrast=settings.contrast,
        spacing=settings.spacing,
        seed=settings.seed,
        lesion=job.lesion,
        stripped=settings.stripped,
    )
    if job.case.mask is not None and phantom.mask is not None:
        write_labels(phantom.mask.astype(np.uint8), phantom.volume.grid, job.case.mask)
    write_volume(replace(phantom.volume, name=job.case.case), job.case.image)
