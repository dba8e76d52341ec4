"""The virtual environment `.venv` of a checkout: made, filled and repaired by the commands that need it.

`run_inside(extras)` at the top of a script is all a command needs.  It returns when the script already runs in an
environment that holds those extras of pyproject.toml in the versions of requirements.lock; otherwise it brings the
environment there and starts the script again inside it.

The state lies in three small files in `.venv`.  One exists only while the environment itself is made.  The stamp says
what is installed; it is written last, so an installation that was interrupted has none and is repeated.  The
unfinished marker exists while pip runs; where a later run finds it, packages that pip left half-written are found by
their own file lists and installed again, because pip itself takes a package for installed as soon as its metadata are
there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
STAMP = "slicer-anomaly-installed.json"
UNFINISHED = "slicer-anomaly-unfinished"
MAKING = "slicer-anomaly-making"
TIDY = """\
import csv, importlib.metadata, pathlib, shutil, sysconfig
sites = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
for dist in list(importlib.metadata.distributions(path=sites)):
    record = dist.read_text("RECORD")
    rows = csv.reader((record or "").splitlines())
    files = [(dist.locate_file(row[0]), row[2]) for row in rows if len(row) == 3 and not row[0].endswith(".pyc")]
    whole = files and all(f.is_file() and (not size or f.stat().st_size == int(size)) for f, size in files)
    folder = pathlib.Path(dist._path)
    if not whole and folder.suffix == ".dist-info":
        print(dist.metadata["Name"] or folder.stem)
        shutil.rmtree(folder)
"""


class SetupError(Exception):
    """The environment cannot be made; the message says in plain words why and what to do."""


def run_inside(extras: Sequence[str], root: Path = ROOT) -> None:
    """Go on only inside an environment with `extras`; make it and start the running script again if need be."""
    try:
        python = ensure(extras, root)
    except SetupError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Interrupted; run the same command again to go on.")
    if not is_running(python):
        restart(python)


def ensure(extras: Sequence[str], root: Path = ROOT) -> Path:
    """Bring `root/.venv` to hold `extras` and return its Python; does nothing when it already does.

    Raises
    ------
    SetupError
        If the environment cannot be made or a package not be installed.
    """
    environment = root / ".venv"
    python = python_of(environment)
    if missing_extras(environment, root, extras) == set():
        return python
    with only_one_at_a_time(root):
        wanted = missing_extras(environment, root, extras)  # another process may have finished while this one waited
        if wanted == set():
            return python
        if not works(environment):
            make(environment)
        install(environment, root, sorted(installed_extras(environment) | set(extras)))
    return python


def python_of(environment: Path) -> Path:
    """The interpreter inside a virtual environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def is_running(python: Path) -> bool:
    """Whether this process runs in the environment of `python` (its executable itself may be a link to elsewhere)."""
    return Path(sys.prefix).resolve() == python.parent.parent.resolve()


def fingerprint(root: Path) -> str:
    """A hash of the two files that say what is installed."""
    digest = hashlib.sha256()
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def read_stamp(environment: Path) -> dict:
    try:
        stamp = json.loads((environment / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def installed_extras(environment: Path) -> set[str]:
    """The extras that the last completed installation held."""
    return set(read_stamp(environment).get("extras", []))


def missing_extras(environment: Path, root: Path, extras: Sequence[str]) -> set[str] | None:
    """Which of `extras` are not installed; None where the whole installation is absent or out of date."""
    up_to_date = read_stamp(environment).get("fingerprint") == fingerprint(root)
    if not up_to_date or not python_of(environment).exists():
        return None
    return set(extras) - installed_extras(environment)


def works(environment: Path) -> bool:
    """Whether an environment was completely made: its Python starts, is new enough and has a pip that starts."""
    if (environment / MAKING).exists():
        return False
    probe = "import sys; sys.exit(sys.version_info < (3, 11))"
    python = python_of(environment)
    return succeeds([python, "-c", probe]) and succeeds([python, "-m", "pip", "--version"])


def succeeds(command: Sequence[str | Path]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def make(environment: Path) -> None:
    """Make an empty virtual environment, in place of one that was left half-made."""
    if environment.exists():
        if not looks_like_an_environment(environment):
            raise SetupError(f"{environment} is in the way: it is not a virtual environment; move it and run again.")
        say("The virtual environment .venv is not usable (half-made, too old, or without pip): making it anew...")
        shutil.rmtree(environment)
    else:
        say("Making a virtual environment in .venv...")
    environment.mkdir()
    (environment / MAKING).touch()
    done = subprocess.run([base_python(), "-m", "venv", environment], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stdout + done.stderr).strip()
        raise SetupError(
            "A virtual environment cannot be made with this Python; on Debian and Ubuntu "
            f"`sudo apt install python3-venv` mends it. Python said:\n{reason}"
        )
    (environment / MAKING).unlink()


def looks_like_an_environment(environment: Path) -> bool:
    """Whether everything in the folder is something that `venv` or this file puts there."""
    made_here = {"bin", "include", "lib", "lib64", "share", "etc", "Scripts", "Include", "Lib", "pyvenv.cfg"}
    made_here |= {STAMP, UNFINISHED, MAKING, "test-data", ".gitignore", "CACHEDIR.TAG"}
    return environment.is_dir() and (
        (environment / "pyvenv.cfg").is_file() or {entry.name for entry in environment.iterdir()} <= made_here
    )


def base_python() -> str:
    """The interpreter outside any virtual environment: one made from another would vanish together with it."""
    return getattr(sys, "_base_executable", None) or sys.executable


def install(environment: Path, root: Path, extras: Sequence[str]) -> None:
    """Install torch and the tools to build with, then the project with its extras, all in the locked versions."""
    python = python_of(environment)
    unfinished = environment / UNFINISHED
    if unfinished.exists():
        remove_half_installed(python)
    unfinished.touch()
    (environment / STAMP).unlink(missing_ok=True)
    locked = ["-c", str(root / "requirements.lock")]
    say("Installing PyTorch; this is the largest part...")
    pip(python, ["install", "setuptools", "torch", *locked], root)
    say(f"Installing the packages for {', '.join(extras)}...")
    pip(python, ["install", "--no-build-isolation", "--editable", f".[{','.join(extras)}]", *locked], root)
    stamp = {"fingerprint": fingerprint(root), "extras": list(extras)}
    temporary = environment / f"{STAMP}.new"
    temporary.write_text(json.dumps(stamp), encoding="utf-8")
    temporary.replace(environment / STAMP)
    unfinished.unlink()
    say("The environment is ready.")


def remove_half_installed(python: Path) -> None:
    """Take the metadata of packages whose files are not all there away, so that pip installs them again."""
    say("The last installation was interrupted; going on with it.")
    done = subprocess.run([python, "-I", "-c", TIDY], capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"The packages in .venv cannot be checked; delete .venv and run again.\n{done.stderr}")
    for name in done.stdout.split():
        say(f"{name} was left half-installed and is installed again.")


def pip(python: Path, arguments: Sequence[str], root: Path) -> None:
    """Run pip; its progress bars are shown on a terminal only, elsewhere just its errors."""
    quiet = [] if sys.stdout.isatty() else ["-qq"]
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments, *quiet]
    if subprocess.run(command, cwd=root, close_fds=False).returncode:  # pip holds the lock too, if we are killed
        raise SetupError(
            "pip could not install the packages (its message is above). Check the connection to the package index, "
            "or the proxy in the variable https_proxy, and run the same command again: it goes on where it stopped."
        )


@contextlib.contextmanager
def only_one_at_a_time(root: Path) -> Iterator[None]:
    """Let a second command wait for the first one's installation; a killed process frees the lock by itself."""
    try:
        import fcntl
    except ImportError:  # Windows: two set-ups at the same time are the user's to avoid
        yield
        return
    with (root / ".venv.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("Another command is setting up .venv; waiting for it...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)
        yield


def restart(python: Path) -> NoReturn:
    """Start the running script again, with the same arguments, under `python`."""
    command = [str(python), *sys.argv]
    sys.stdout.flush()
    if os.name == "nt":  # there, exec returns to the shell before the script has run
        sys.exit(subprocess.run(command).returncode)
    os.execv(command[0], command)


def say(sentence: str) -> None:
    print(sentence, flush=True)
