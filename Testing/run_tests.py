#!/usr/bin/env python3
"""Check and test this checkout, in an environment that the command makes itself (see --help)."""

# This file alone must be readable by any Python 3, so that an old one can be told what is missing.
import os
import subprocess
import sys

HELP = """\
usage: python3 Testing/run_tests.py [--help] [arguments of pytest ...]

Makes the virtual environment .venv in the checkout where it is absent or out of date (a download of about 1 GB the
first time, seconds afterwards), then runs ruff, mypy and the tests. It can be interrupted and run again at any time.
Libraries of the system that off-screen drawing needs (OpenGL in software) are installed where the command runs as root
with apt-get; elsewhere it names the command that installs them.

Everything but --help is passed to pytest, for example:
  -k NAME          only tests whose name contains NAME
  -m "not slow"    leave the long ones out
  -x               stop at the first failure

Every skipped test is printed with its reason. With CI=true in the environment a skip that is not foreseen in
Testing/conftest.py is a failure. The exit code is 0 only if everything passed."""

CHECKS = (
    ("the rules of style", ("ruff", "check", ".")),
    ("the formatting", ("ruff", "format", "--check", ".")),
    ("the types", ("mypy",)),
)


def main(arguments):
    if sys.version_info < (3, 11):  # noqa: UP036 (the very purpose of the check)
        running = ".".join(str(number) for number in sys.version_info[:2])
        sys.exit("This project needs Python 3.11 or newer, and this is Python " + running + ".")
    if arguments in (["--help"], ["-h"]):
        print(HELP)
        return 0
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    sys.path.insert(0, os.path.join(root, "training_scripts"))  # noqa: PTH118
    import _environment

    _environment.run_inside(("demo", "test", "train"))
    passes("the libraries of the system", ("harness.libraries",), os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    failed = [what for what, command in CHECKS if not passes(what, command, root)]
    if failed:
        print("Not in order: " + ", ".join(failed) + ". The tests run all the same, but the result is a failure.")
    print("Running the tests...", flush=True)
    tests = subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=root)
    return tests or int(bool(failed))


def passes(what, command, root):
    print("Checking " + what + " (" + " ".join(command) + ")...", flush=True)
    return subprocess.call([sys.executable, "-m", *command], cwd=root) == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
