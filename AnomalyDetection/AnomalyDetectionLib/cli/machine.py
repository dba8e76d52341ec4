"""What this machine has, and whether scoring would run on it: the facts behind `slicer-anomaly doctor`."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import InputError, one_line

REQUIREMENTS = (
    "nibabel>=5.2",
    "numpy>=1.26,<3",
    "pillow>=10",
    "pydicom>=3.0,<4",
    "SimpleITK>=2.3,<3",
    "torch>=2.2.2,<3",
)
"""What scoring needs; the same as the dependencies in pyproject.toml, kept here because a copy of the package inside
Slicer carries no metadata of its own (a test holds the two together)."""

IMPORT_NAMES = {"pillow": "PIL"}

LEAST_PYTHON = (3, 11)
LEAST_MEMORY = 2 << 30
"""Scoring may take six times the float32 volume: 1.5 GB for 400 x 400 x 400 voxels."""

LEAST_TEMPORARY = 200 << 20
"""Calibration keeps about 30 MB a case in temporary files."""


@dataclass
class Package:
    """A package against its required range; `problem` is a sentence, or None where all is well."""

    name: str
    required: str
    installed: str | None = None
    problem: str | None = None


@dataclass
class Gpu:
    """A GPU, and whether a computation on it gave the right answer."""

    device: str
    name: str
    total_bytes: int
    free_bytes: int
    problem: str | None = None


@dataclass
class BundleCheck:
    """A model, verified and loaded."""

    path: str
    id: str | None = None
    version: str | None = None
    detector: str | None = None
    calibration_normals: int | None = None
    problem: str | None = None


@dataclass
class Disk:
    """Free space where files are written."""

    use: str
    path: str
    free_bytes: int


@dataclass
class Report:
    """All facts; `problems` stop scoring, `warnings` do not."""

    software: str = __version__
    python: str = platform.python_version()
    interpreter: str = sys.executable
    system: str = f"{platform.system()} {platform.release()} {platform.machine()}"
    cpu_cores: int = 0
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    gpus: list[Gpu] = field(default_factory=list)
    packages: list[Package] = field(default_factory=list)
    models: list[BundleCheck] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether scoring would run."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, with `ready`."""
        return {**asdict(self), "ready": self.ready}


def inspect(bundles: list[Path]) -> Report:
    """Look at everything; a part that fails becomes a problem in the report, never an exception."""
    report = Report()
    if sys.version_info < LEAST_PYTHON:
        report.problems.append(f"Python {report.python} is too old; 3.11 or newer is needed.")
    report.packages = [check_package(requirement) for requirement in REQUIREMENTS]
    report.problems += [package.problem for package in report.packages if package.problem]
    torch_works = not any(package.name == "torch" and package.problem for package in report.packages)
    report.cpu_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _look_at_memory(report, torch_works)
    _look_at_disks(report)
    if torch_works:
        _look_at_torch(report)
        report.models = [check_bundle(path) for path in bundles]
        report.problems += [model.problem for model in report.models if model.problem]
    elif bundles:
        report.warnings.append("The models were not checked, since PyTorch does not work.")
    return report


def check_package(requirement: str) -> Package:
    """Import a package and compare its version with a requirement such as 'numpy>=1.26,<3'."""
    name, specifier = re.fullmatch(r"([\w.-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
    package = Package(name, specifier)
    try:
        module = importlib.import_module(IMPORT_NAMES.get(name, name))
    except ModuleNotFoundError as error:
        missing = name if error.name == IMPORT_NAMES.get(name, name) else f"{error.name}, which {name} needs,"
        package.problem = f"The Python package {missing} is not installed; install it with: pip install '{requirement}'"
        return package
    except Exception as error:  # a damaged or mismatched binary raises anything from ImportError to OSError
        package.problem = (
            f"The Python package {name} cannot be imported ({one_line(str(error), 200)}); install it again."
        )
        return package
    package.installed = str(getattr(module, "__version__", "unknown"))
    if not satisfies(package.installed, specifier):
        package.problem = f"{name} {package.installed} is installed; {specifier} is needed: pip install '{requirement}'"
    return package


def satisfies(version: str, specifier: str) -> bool:
    """Whether the release number of a version lies in a range of `>=`, `<`, `==` and `!=` clauses."""
    have = _release(version)
    for clause in filter(None, specifier.split(",")):
        operator, bound = re.fullmatch(r"\s*(>=|<=|==|!=|<|>)\s*(.+)", clause).groups()  # type: ignore[union-attr]
        want = _release(bound)
        width = max(len(have), len(want))
        left, right = (t + (0,) * (width - len(t)) for t in (have, want))
        holds = {
            ">=": left >= right,
            "<=": left <= right,
            "==": left == right,
            "!=": left != right,
            "<": left < right,
            ">": left > right,
        }[operator]
        if not holds:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: '2.13.0+cpu' is (2, 13, 0)."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()


def check_bundle(path: Path) -> BundleCheck:
    """Verify a bundle's hashes and rebuild its model."""
    from AnomalyDetectionLib.models.bundle import load_bundle

    check = BundleCheck(str(path))
    try:
        model = load_bundle(path)
    except InputError as error:
        check.problem = one_line(str(error))
        return check
    check.id, check.version = model.identity.id, model.identity.version
    check.detector, check.calibration_normals = model.identity.detector, model.calibration.n
    return check


def _look_at_memory(report: Report, torch_works: bool) -> None:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        report.memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if not torch_works:
        return
    import torch

    from AnomalyDetectionLib.models.devices import free_bytes

    free = report.memory_free_bytes = free_bytes(torch.device("cpu"))
    if free is not None and free < LEAST_MEMORY:
        report.warnings.append(
            f"{free / 1e9:.1f} GB of memory are free; a large volume needs {LEAST_MEMORY / 1e9:.0f} GB."
        )


def _look_at_disks(report: Report) -> None:
    try:
        temporary = tempfile.gettempdir()
        with tempfile.TemporaryFile() as probe:
            probe.write(b"\0" * 4096)
    except OSError as error:
        report.problems.append(
            f"No temporary file can be written ({one_line(str(error))}); set TMPDIR to another folder."
        )
        return
    places = {"temporary files": temporary, "working folder": str(Path.cwd())}
    report.disks = [Disk(use, path, shutil.disk_usage(path).free) for use, path in places.items()]
    if report.disks[0].free_bytes < LEAST_TEMPORARY:
        report.warnings.append(
            f"{report.disks[0].free_bytes / 1e6:.0f} MB are free for temporary files; calibration may need more."
        )


def _look_at_torch(report: Report) -> None:
    import numpy as np
    import torch

    try:
        torch.from_numpy(np.zeros(2, dtype=np.float32)).numpy()
    except (RuntimeError, TypeError) as error:
        report.problems.append(
            f"PyTorch {torch.__version__} does not work with numpy {np.__version__} ({one_line(str(error), 120)}); "
            "install versions that go together."
        )
    if torch.cuda.is_available():
        report.gpus = [probe_gpu(index) for index in range(torch.cuda.device_count())]
        report.warnings += [
            f"{gpu.device} ({gpu.name}) cannot be used: {gpu.problem}" for gpu in report.gpus if gpu.problem
        ]
    elif shutil.which("nvidia-smi"):
        reason = (
            "this PyTorch was built without CUDA"
            if torch.version.cuda is None
            else "its driver does not fit this PyTorch"
        )
        report.warnings.append(f"There is an NVIDIA GPU, but {reason}; scoring uses the CPU.")


def probe_gpu(index: int) -> Gpu:
    """Compute on a GPU and compare with the CPU: a PyTorch without kernels for it still calls it available."""
    import torch

    facts = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    gpu = Gpu(f"cuda:{index}", facts.name, total, free)
    try:
        image = torch.arange(512, dtype=torch.float32).reshape(1, 1, 8, 8, 8) / 512
        kernel = torch.ones(1, 1, 3, 3, 3)
        expected = torch.nn.functional.conv3d(image, kernel)
        found = torch.nn.functional.conv3d(image.to(gpu.device), kernel.to(gpu.device)).cpu()
        if not torch.allclose(found, expected, rtol=1e-2):  # TF32 keeps 10 bits
            gpu.problem = "it computes wrong results; check the driver."
    except RuntimeError as error:
        gpu.problem = f"{one_line(str(error), 160)}; install a PyTorch build made for it, or choose --device cpu."
    return gpu
