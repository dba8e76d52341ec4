"""The README's picture of the panel can be taken at any time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPTS = Path(__file__).resolve().parents[2] / "training_scripts"


@pytest.mark.slow
def test_the_picture_of_the_panel_is_taken_with_a_score_in_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; import _panel_pictures as p; p.take(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    )
    words = [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "thumbnail.png")]
    done = subprocess.run(words, cwd=SCRIPTS, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "slicer.png") as picture, Image.open(tmp_path / "thumbnail.png") as thumbnail:
        assert picture.size == (1180, 860) and max(thumbnail.size) == 160
        heat = sum(red > 200 and blue < 150 for red, _, blue in picture.convert("RGB").get_flattened_data())
    assert heat > 500  # the lesion is yellow in three views
