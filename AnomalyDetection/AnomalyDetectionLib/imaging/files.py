"""Readers of image files that are not DICOM: NIfTI, NRRD, MetaImage, PNG and JPEG."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from AnomalyDetectionLib.errors import InputError

from .colour import luminance
from .geometry import grid_of, ras_lps
from .sniff import JPEG, META, NIFTI, NRRD, PNG
from .volume import Volume

_FREE = 256 << 20
_DEFLATE_RATIO = 1032
"""The most that deflate can shrink; a header that claims more than this many times its file is false."""
_ENDINGS = {NIFTI: (".nii", ".hdr", ".img"), NRRD: (".nrrd", ".nhdr"), META: (".mha", ".mhd")}
_MILLIMETRES = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}


def read_file(path: Path, kind: str, modality: str) -> Volume:
    """Read an image file of a kind that `sniff.kind_of` found.

    Raises
    ------
    InputError
        If the file is damaged, or holds something other than one scalar image of two or three axes.
    """
    _check_name(path, kind)
    if kind == NIFTI:
        return _nifti(path, modality)
    if kind in (NRRD, META):
        return _itk(path, modality)
    if kind in (PNG, JPEG):
        return _picture(path, kind, modality)
    raise InputError(f"{path}: {kind} is not read here.")


def _check_name(path: Path, kind: str) -> None:
    """nibabel and ITK choose their reader by the ending: say so, where it is not that of the content."""
    endings = _ENDINGS.get(kind, ())
    if kind == NIFTI:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        endings = (".gz",) if packed else endings
    if endings and not path.name.lower().endswith(endings):
        ending = ".nii.gz" if endings == (".gz",) else endings[0]
        raise InputError(f"{path}: by its content the file is {kind}; rename it so that it ends in {ending}.")


def stem_of(path: Path) -> str:
    """The name of a file without its endings, safe for a folder."""
    stem = re.sub(r"\.(nii\.gz|nii|hdr|img|nrrd|nhdr|mha|mhd|png|jpe?g|gz)$", "", path.name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9.-]+", "_", stem).strip("._-")[:40] or "image"


def _nifti(path: Path, modality: str) -> Volume:
    try:
        import nibabel
    except ImportError as error:
        raise InputError(
            f"{path}: reading NIfTI takes the package nibabel; install it (pip install nibabel) and try again."
        ) from error
    try:
        image = nibabel.load(path)
    except Exception as error:  # nibabel raises its own, struct's, zlib's and OS errors for damaged headers
        raise _damaged(path, "NIfTI", error) from error
    header = image.header
    shape = tuple(int(n) for n in image.shape)
    if header.get_data_dtype().kind not in "iuf":
        raise InputError(
            f"{path}: the NIfTI holds {header.get_data_dtype()} voxels (colour or complex), not one scalar each."
        )
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise InputError(
            f"{path}: the file holds {math.prod(shape[3:])} volumes (shape {shape}); split it, for instance with "
            "fslsplit or nibabel.funcs.four_to_three, and give one of them."
        )
    shape += (1,) * (3 - len(shape))
    data_file = Path(image.file_map["image"].filename or path)
    _check_claim(path, math.prod(shape) * header.get_data_dtype().itemsize, data_file.stat().st_size)
    notes, affine, spacing_known, orientation_known = _nifti_geometry(image)
    try:
        array = _scaled(image.dataobj, shape)
    except Exception as error:  # as above, met while unpacking the voxels
        raise _damaged(path, "NIfTI", error) from error
    return Volume(
        array,
        affine,
        modality=modality,
        spacing_known=spacing_known,
        orientation_known=orientation_known,
        name=stem_of(path),
        source=[str(path)],
        notes=notes,
    )


def _scaled(proxy: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Stored values times slope plus intercept, slice by slice: nibabel's own scaling takes four times the result.

    The file is in Fortran order: its transpose is (K, J, I) without a copy.
    """
    stored = proxy.get_unscaled().reshape(shape, order="F").T
    slope, intercept = float(proxy.slope), float(proxy.inter)
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(np.float32, copy=False)
    scaled = np.empty(stored.shape, dtype=np.float32)
    for out, values in zip(scaled, stored, strict=True):
        out[...] = values * slope + intercept
    return scaled


def _nifti_geometry(image: Any) -> tuple[list[str], NDArray[np.float64], bool, bool]:
    """Notes, affine in mm, whether spacing and orientation are known; sform before qform, as nibabel has it."""
    notes = []
    header, affine = image.header, np.array(image.affine, dtype=np.float64)
    coded = bool(int(header["qform_code"]) or int(header["sform_code"]))
    if not coded:
        notes.append("The NIfTI states no orientation (sform and qform are 0); sides are not reported.")
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        unit = "unknown"
    scale = _MILLIMETRES.get(unit, 1.0)
    if scale != 1.0:
        affine[:3] *= scale
        notes.append(f"The NIfTI is in units of {unit}; converted to millimetres.")
    spacing_known = coded or not np.allclose(header.get_zooms()[:3], 1.0)
    return notes, affine, spacing_known, coded


def _itk(path: Path, modality: str) -> Volume:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    data_file = _detached(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _damaged(path, "image", error) from error
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    if components != 1 or "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()).lower():
        raise InputError(
            f"{path}: every voxel holds {components} values (colour or vectors), not one; give one channel."
        )
    if math.prod(size[3:]) != 1:
        raise InputError(
            f"{path}: the file holds {math.prod(size[3:])} volumes (shape {size}); split it and give one of them."
        )
    _check_claim(path, math.prod(size) * _bytes_each(reader.GetPixelID()), data_file.stat().st_size)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _damaged(path, "image", error) from error
    while image.GetDimension() > 3:
        image = image[(*(slice(None),) * (image.GetDimension() - 1), 0)]
    array = sitk.GetArrayViewFromImage(image).astype(np.float32)
    if image.GetDimension() == 3:
        affine = grid_of(image, stem_of(path)).ijk_to_ras
    else:
        array, affine = array[None], _flat_affine(image)
    return Volume(array, affine, modality=modality, name=stem_of(path), source=[str(path)])


def _flat_affine(image: sitk.Image) -> NDArray[np.float64]:
    """The plane of a two-dimensional image, as the axial plane that ITK takes it for."""
    affine = np.eye(4)
    affine[:2, :2] = np.array(image.GetDirection()).reshape(2, 2) * np.array(image.GetSpacing())
    affine[:2, 3] = image.GetOrigin()
    return ras_lps(affine)


def _bytes_each(pixel_id: int) -> int:
    return np.dtype(sitk.extra._get_numpy_dtype(sitk.Image([1, 1, 1], pixel_id))).itemsize


def _detached(path: Path) -> Path:
    """The file with the voxels of a header of its own; it must lie in the same folder.

    ITK opens whatever path a detached header names: a header from elsewhere could name any file of this machine.
    """
    with path.open("rb") as stream:
        text = stream.read(1 << 16).decode("latin-1")
    nrrd = text.startswith("NRRD")
    if nrrd:
        text = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
        found = re.search(r"^data ?file:\s*(.*?)\s*$", text, flags=re.IGNORECASE | re.MULTILINE)
    else:
        found = re.search(r"^ElementDataFile\s*=\s*(.*?)\s*$", text, flags=re.MULTILINE)
    if found is None or found[1].upper() == "LOCAL":
        return path
    name = found[1]
    if name.split()[:1] == ["LIST"] or "%" in name or not (path.parent / name).is_file():
        raise InputError(
            f"{path}: its voxels are in '{name}', which is not one file beside it; put it there and try again."
        )
    if Path(name).name != name:
        raise InputError(
            f"{path}: its voxels are in '{name}', in another folder; put that file beside it and try again."
        )
    return path.parent / name


def _picture(path: Path, kind: str, modality: str) -> Volume:
    notes = ["A picture file has no geometry: sizes are counted in pixels and sides are not reported."]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                turn = image.getexif().get(ExifTags.Base.Orientation, 1)
                if getattr(image, "n_frames", 1) > 1:
                    notes.append("Only the first picture of the file is read.")
                pixels = _deep_png(path) if kind == PNG and _is_deep(path) else _pixels(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: the picture claims to be too large to be read; make it smaller.") from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, RuntimeError) as error:
        raise _damaged(path, kind, error) from error
    if pixels.ndim == 3:
        out = np.empty(pixels.shape[:2], dtype=np.float32)
        luminance(pixels, out)
        if not np.array_equal(pixels[..., 0], pixels[..., 1]) or not np.array_equal(pixels[..., 0], pixels[..., 2]):
            notes.append("Colour was turned into luminance (BT.601).")
        pixels = out
    upright = _upright(pixels, turn)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # as ITK and Slicer place a picture: LPS identity
    return Volume(
        upright[None].astype(np.float32, copy=False),
        affine,
        modality=modality,
        spacing_known=False,
        orientation_known=False,
        name=stem_of(path),
        source=[str(path)],
        notes=notes,
    )


def _pixels(image: Image.Image) -> NDArray:
    """Grey values, or RGB without alpha."""
    if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode in ("1", "LA", "La"):
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGBA" if image.mode == "P" else "RGB"))[..., :3]


def _is_deep(path: Path) -> bool:
    """Whether a PNG has 16 bits in more than one channel, which Pillow would cut to 8."""
    with path.open("rb") as stream:
        head = stream.read(26)
    return len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)


def _deep_png(path: Path) -> NDArray:
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="PNGImageIO"))
    return array[..., 0] if array.shape[-1] == 2 else array[..., :3]


def _upright(pixels: NDArray, turn: int) -> NDArray:
    """Undo the orientation that a camera or scanner noted (Exif 0x0112, values 1 to 8)."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.T
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _check_claim(path: Path, claimed: int, held: int) -> None:
    """Refuse, before memory is taken, a header that announces more voxels than its file could hold."""
    if claimed > max(_FREE, _DEFLATE_RATIO * held):
        raise InputError(
            f"{path}: the header announces {claimed >> 20} MiB of voxels, more than its {held} bytes can hold; "
            "the file is damaged."
        )


def _damaged(path: Path, kind: str, error: Exception) -> InputError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # ITK ends with the system's last error, which for a short MetaImage is some other file's.
    lines = [line for line in lines if not line.startswith("Reason:")] or [type(error).__name__]
    said = lines[-1].removeprefix("itk::ERROR: ")[:160]
    return InputError(f"{path}: the {kind} file is damaged or truncated ({said}); copy or export it again.")
