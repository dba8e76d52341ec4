"""Imports run downwards only, and each part imports only the packages that its floor allows."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from project.cmake_lists import CHECKOUT, MODULES

DETECTION, TRAINING = "AnomalyDetectionLib", "AnomalyTrainingLib"

#: What Slicer bundles, and torch, which the user adds: the floor of everything that takes part in scoring.
SCORING_FLOOR = {"numpy", "SimpleITK", "pydicom", "PIL", "torch"}
#: Imported inside the function that needs it, because Slicer does not bundle it.
SCORING_ON_DEMAND = {"nibabel"}
SLICER_FLOOR = {"numpy", "slicer", "qt", "ctk", "vtk", "SimpleITK", "pydicom"}
TRAINING_FLOOR = SCORING_FLOOR | {"nibabel", "scipy", "skimage", "sklearn", "matplotlib", "monai", "lightning"}
TRAINING_FLOOR |= {"pydantic", "yaml", "jsonschema", "seaborn", "jinja2"}


class Layer(NamedTuple):
    """Which of the own layers a layer may import besides itself, and which packages (at the top, or when needed)."""

    below: tuple[str, ...]
    packages: set[str]
    on_demand: set[str] = frozenset()  # type: ignore[assignment]


def scoring_layer(*below: str) -> Layer:
    return Layer(below, SCORING_FLOOR, SCORING_ON_DEMAND)


CORE = ("imaging", "devices", "scoring", "models", "interop")
LAYERS = {
    # of AnomalyDetectionLib; "root" is its __init__ and errors, open to all
    f"{DETECTION}.root": Layer((), set()),
    f"{DETECTION}.imaging": scoring_layer(),
    f"{DETECTION}.devices": scoring_layer(),  # models/devices.py: which device, how much memory
    f"{DETECTION}.scoring": Layer(
        ("imaging", "devices"), SCORING_FLOOR, SCORING_ON_DEMAND | {"captum"}
    ),  # captum for some methods of attribution alone
    f"{DETECTION}.detectors": Layer(
        ("imaging", "scoring"), SCORING_FLOOR, SCORING_ON_DEMAND | {"monai", "skimage", "pywt", "sklearn"}
    ),  # MONAI for the classifier's 3D networks alone; the others for the classical detectors, scikit-learn to fit them
    f"{DETECTION}.models": scoring_layer("imaging", "devices", "scoring"),
    f"{DETECTION}.interop": Layer(
        ("imaging", "scoring", "models"), SCORING_FLOOR, SCORING_ON_DEMAND | {"highdicom", "pynetdicom"}
    ),
    f"{DETECTION}.worker": scoring_layer(*CORE),
    f"{DETECTION}.service": Layer(CORE, SCORING_FLOOR | {"fastapi", "uvicorn", "starlette", "pydantic"}),
    f"{DETECTION}.cli": scoring_layer(*CORE, "worker", "service"),
    f"{DETECTION}.slicer_ui": Layer(
        ("imaging", "scoring", "models", "interop", "worker"), SLICER_FLOOR, {"PyTorchUtils", "SampleData"}
    ),
    # of AnomalyTrainingLib, which may import all of AnomalyDetectionLib but its other doors; only evaluation writes
    # scenes, as slicer_ui shows them
    f"{TRAINING}.root": Layer((), set()),
    f"{TRAINING}.recipes": Layer((), set()),
    f"{TRAINING}.cohorts": Layer((), TRAINING_FLOOR),
    f"{TRAINING}.synthesis": Layer(("cohorts",), TRAINING_FLOOR, {"nilearn"}),
    f"{TRAINING}.training": Layer(("cohorts", "synthesis", "recipes"), TRAINING_FLOOR),
    f"{TRAINING}.evaluation": Layer(("cohorts", "synthesis", "training"), TRAINING_FLOOR),
    f"{TRAINING}.cli": Layer(("cohorts", "synthesis", "recipes", "training", "evaluation"), {"numpy"}, TRAINING_FLOOR),
    f"{TRAINING}.slicer_ui": Layer((), SLICER_FLOOR),
}
FROM_DETECTION = {  # what a layer of AnomalyTrainingLib may import of AnomalyDetectionLib
    "cli": {"root", "imaging", "devices", "scoring", "detectors", "models", "interop", "cli"},
    "slicer_ui": {"root", "slicer_ui"},
    "evaluation": {"root", "imaging", "devices", "scoring", "detectors", "models", "interop", "slicer_ui"},
}
FROM_DETECTION_OTHERWISE = {"root", "imaging", "devices", "scoring", "detectors", "models", "interop"}


class Import(NamedTuple):
    name: str
    line: int
    at_top: bool


def layer_of(module: str) -> str:
    """The layer a dotted module name belongs to."""
    parts = module.split(".")
    if parts[:3] == [DETECTION, "models", "devices"]:
        return f"{DETECTION}.devices"
    if len(parts) == 1 or f"{parts[0]}.{parts[1]}" == f"{DETECTION}.errors":
        return f"{parts[0]}.root"
    return f"{parts[0]}.{parts[1]}"


def imports_of(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """Every import statement of a file, relative ones made absolute; those for type checkers only are left out."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    pending: list[tuple[ast.AST, bool]] = [(ast.parse(source), True)]
    while pending:
        node, at_top = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend((child, at_top) for child in node.orelse)
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_top)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{stem}.{alias.name}", node.lineno, at_top)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        pending.extend((child, at_top and not inside) for child in ast.iter_child_nodes(node))


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What a file imports against the rules, one sentence each."""
    library = module.partition(".")[0]
    own = layer_of(module)
    if own not in LAYERS:
        return [f"{module}: the table of layers does not know {own}"]
    layer = LAYERS[own]
    found = []
    for name, line, at_top in imports_of(source, module, is_package):
        top = name.partition(".")[0]
        if top in (DETECTION, TRAINING):
            if not own_import_allowed(own, layer, library, name):
                found.append(f"{module}:{line} imports upwards: {name}")
        elif top not in sys.stdlib_module_names and top not in layer.packages:
            if top not in layer.on_demand:
                found.append(f"{module}:{line} imports a package of another floor: {top}")
            elif at_top:
                found.append(f"{module}:{line} imports {top} at the top; it must be imported where it is needed")
    return found


def own_import_allowed(own: str, layer: Layer, library: str, name: str) -> bool:
    target = layer_of(name) if name.count(".") else f"{name}.root"
    if target not in LAYERS:  # a name taken from the package itself, such as __version__
        target = f"{name.partition('.')[0]}.root"
    target_library, _, short = target.partition(".")
    if library == DETECTION and target_library == TRAINING:
        return False
    if library == TRAINING and target_library == DETECTION:
        return short in FROM_DETECTION.get(own.partition(".")[2], FROM_DETECTION_OTHERWISE)
    return short == "root" or target == own or short in layer.below


def library_files() -> list[tuple[str, Path]]:
    """The dotted name and path of every Python file of both libraries."""
    files = []
    for module in MODULES:
        for path in sorted((CHECKOUT / module / f"{module}Lib").rglob("*.py")):
            parts = path.relative_to(CHECKOUT / module).with_suffix("").parts
            files.append((".".join(part for part in parts if part != "__init__"), path))
    return files


def test_imports_run_downwards_only_and_stay_on_their_floor() -> None:
    files = library_files()
    assert len(files) > 20
    found = [
        sentence
        for module, path in files
        for sentence in violations(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (f"{DETECTION}.imaging.read", f"from {DETECTION}.scoring.contract import Detector"),
        (f"{DETECTION}.imaging.read", "from ..scoring import contract"),
        (f"{DETECTION}.imaging.read", "import nibabel"),
        (f"{DETECTION}.imaging.read", "def read():\n    import scipy.ndimage"),
        (f"{DETECTION}.scoring.scorer", f"import {DETECTION}.models.bundle"),
        (f"{DETECTION}.detectors.zscore", "def fit():\n    from AnomalyTrainingLib.synthesis import phantom"),
        (f"{DETECTION}.interop.reports", "from ..cli.progress import Progress"),
        (f"{DETECTION}.slicer_ui.review", "import torch"),
        (f"{DETECTION}.unheard_of.thing", "import os"),
        (f"{TRAINING}.cohorts.manifest", f"from {DETECTION}.cli.progress import Progress"),
        (f"{TRAINING}.synthesis.phantom", "from ..training.run import Run"),
    ],
)
def test_an_import_upwards_or_of_another_floor_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (f"{DETECTION}.imaging.read", "def read():\n    import nibabel"),
        (f"{DETECTION}.imaging.read", f"from {DETECTION}.errors import InputError\nfrom .volume import Volume"),
        (f"{DETECTION}.scoring.scorer", f"from {DETECTION}.models.devices import choose_device\nimport torch"),
        (f"{DETECTION}.models.card", f"from {DETECTION} import __version__"),
        (f"{DETECTION}.scoring.result", "if TYPE_CHECKING:\n    from ..models.bundle import Bundle"),
        (f"{TRAINING}.training.run", f"from {DETECTION}.models.bundle import write_bundle\nimport monai"),
    ],
)
def test_an_import_downwards_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []
