"""The harness answers small questions as a real Slicer 5.12.3 application did (`data/recorded.json`), one by one.

`data/probe.py` and the record are copies of what was run in Slicer; neither is edited here.  No question is left out.
With SLICER_PYTHON_DIR in the environment Slicer's own Python files answer, without it the harness's stand-ins.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import harness

DATA = Path(__file__).parent / "data"
RECORDED: dict[str, Any] = json.loads((DATA / "recorded.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def probe() -> Any:
    harness.start()
    spec = importlib.util.spec_from_file_location("conformance_probe", DATA / "probe.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_question_has_a_recorded_answer(probe: Any) -> None:
    assert set(probe.PROBES) == set(RECORDED) and len(RECORDED) == 90


@pytest.mark.parametrize("question", RECORDED)
def test_the_harness_answers_as_slicer_does(probe: Any, question: str) -> None:
    code = probe.PROBES[question]
    assert probe._answer(code) == RECORDED[question], code
