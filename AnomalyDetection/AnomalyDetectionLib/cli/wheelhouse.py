"""A folder of wheels from which Slicer's Python can be equipped without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from AnomalyDetectionLib.errors import InputError, OutputError, one_line

SLICER_PYTHON = "3.12"
"""Python of Slicer 5.12 and 5.13."""

_OFFLINE = re.compile(
    r"Failed to establish a new connection|NewConnectionError|ConnectionError|Name or service not known"
    r"|Temporary failure in name resolution|ProxyError|SSLError|ReadTimeout|ConnectTimeoutError|getaddrinfo failed"
)


def make_wheelhouse(requirements: Sequence[str], folder: Path) -> list[Path]:
    """Download the wheels of `requirements` and of all they need, for Slicer's Python on this kind of machine.

    pip does the work, with its own settings (index, proxy, certificates: PIP_INDEX_URL, HTTPS_PROXY, PIP_CERT); what it
    says goes to standard error.

    Returns
    -------
    list of Path
        The wheels.

    Raises
    ------
    OutputError
        If the folder exists and is not empty, or cannot be written.
    InputError
        If pip cannot fetch everything.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: there is something in it already; choose an empty folder.")
    partial = folder.absolute().parent / f".{folder.name}.{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True)
        _download(requirements, partial)
        (partial / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        (partial / "README.txt").write_text(_HOW_TO, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(folder.glob("*.whl"))


_HOW_TO = f"""Wheels for scoring in 3D Slicer (Python {SLICER_PYTHON}) without a network.

Copy this folder to the machine, and in Slicer's Python console run

    slicer.util.pip_install("--no-index --find-links=FOLDER -r FOLDER/requirements.txt")

with FOLDER the path of the copy.  Packages that Slicer brings along (numpy, SimpleITK, ...) stay as they are.
"""


def _download(requirements: Sequence[str], folder: Path) -> None:
    version = SLICER_PYTHON.replace(".", "")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--python-version", SLICER_PYTHON, "--implementation", "cp", "--abi", f"cp{version}"]
    command += ["--retries", "1", "--dest", str(folder), *requirements]
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
    ) as pip:
        assert pip.stdout is not None
        try:
            for line in pip.stdout:
                said.append(line)
                print(line, end="", file=sys.stderr, flush=True)
            code = pip.wait()
        except BaseException:
            pip.kill()
            raise
    if code != 0:
        raise InputError(_reason(said))


def _reason(said: list[str]) -> str:
    text = "".join(said)
    if "No module named pip" in text:
        return "This Python has no pip; install it (python -m ensurepip) and try again."
    if _OFFLINE.search(text):
        return (
            "The package index cannot be reached; connect to a network or set HTTPS_PROXY, PIP_INDEX_URL or PIP_CERT, "
            "and try again."
        )
    errors = [line for line in said if line.startswith("ERROR:")] or said[-1:] or ["no reason given"]
    return f"pip could not fetch all wheels: {one_line(errors[-1].removeprefix('ERROR:'), 300).rstrip('.')}."
