"""What Slicer loads at its start imports nothing that Slicer does not bundle: tried with those packages blocked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from project.cmake_lists import CHECKOUT, MODULES

BLOCKED = [
    "dicomweb_client",
    "fastapi",
    "highdicom",
    "jsonschema",
    "lightning",
    "matplotlib",
    "monai",
    "nibabel",
    "nilearn",
    "pandas",
    "pydantic",
    "pynetdicom",
    "pytorch_lightning",
    "scipy",
    "seaborn",
    "skimage",
    "sklearn",
    "torch",
    "torchmetrics",
    "uvicorn",
    "yaml",
]

OPEN_ALL = """\
import importlib, sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not bundled with Slicer")

BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Refuse())
for name in BLOCKED:
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    sys.exit(f"{name} is not blocked")

import harness
for path in sys.argv[2].split(","):
    harness.open_module(path)
for name in sys.argv[3].split(","):
    importlib.import_module(name)
    print("imported", name)
"""


def slicer_ui_modules() -> list[str]:
    """The dotted names of every file in a slicer_ui folder."""
    names = []
    for module in MODULES:
        for path in sorted((CHECKOUT / module / f"{module}Lib").rglob("slicer_ui/**/*.py")):
            parts = path.relative_to(CHECKOUT / module).with_suffix("").parts
            names.append(".".join(part for part in parts if part != "__init__"))
    return names


def test_both_modules_and_everything_of_slicer_ui_load_without_what_slicer_does_not_bundle(tmp_path: Path) -> None:
    folders = [str(CHECKOUT / folder) for folder in (*MODULES, "Testing")]
    files = [str(CHECKOUT / module / f"{module}.py") for module in MODULES]
    command = [sys.executable, "-c", OPEN_ALL, ",".join(BLOCKED), ",".join(files), ",".join(slicer_ui_modules())]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "imported AnomalyDetectionLib.slicer_ui.common.reloading" in done.stdout
