"""Runs that cannot go on: another run's folder, too little memory, a full disk; each in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import simulated
from limits import small_disk

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.imaging.write import write_volume

CONFIG = """
name: tiny
detector: autoencoder
few_normals: true
options: {widths: [4, 8], latent: 8}
input: {kind: slices, modalities: [MR], intensity: mr-robust, grid: own, spacing: [8.0, 8.0, 8.0], size: [32, 32]}
training: {epochs: 2, batch: 8}
calibration: {method: split}
baselines: none
"""
START = """
import resource, sys, torch, monai.transforms, lightning.pytorch
import AnomalyDetectionLib.cli.main as cli
torch.set_num_threads(1)
room = int(sys.argv.pop(1))
if room:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
raise SystemExit(cli.main())
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["case,patient,image,label,split"]
    for n, split in enumerate(["train", "train", "validate", "calibrate", "calibrate"]):
        write_volume(simulated.head(n), folder / f"{n}.nii.gz")
        lines.append(f"n{n},p{n},{n}.nii.gz,0,{split}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text(CONFIG)
    return folder / "cohort.csv"


def arguments(cohort: Path, out: Path, *more: str) -> list[str]:
    changes = [part for change in more for part in ("--set", change)]
    config = str(cohort.with_name("config.yaml"))
    return ["train", config, "--cohort", str(cohort), "--out", str(out), "--device", "cpu", *changes]


def run(cohort: Path, out: Path, *more: str, memory: int = 0) -> subprocess.CompletedProcess[str]:
    """Train in a process that may take so many bytes of memory beyond what it has once all is imported."""
    command = [sys.executable, "-c", START, str(memory), *arguments(cohort, out, *more), "--progress", "none"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250, check=False)


@pytest.mark.slow
def test_too_little_memory_is_one_sentence_that_says_what_to_lower(cohort: Path, tmp_path: Path) -> None:
    large = ["input.size=[224, 224]", "options.widths=[64, 8]", "training.batch=100"]
    done = run(cohort, tmp_path / "run", *large, memory=700 << 20)
    assert done.returncode == 2, done.stderr
    assert "not enough memory to train with batches of 100; lower training.batch or input.size" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_no_half_checkpoint(cohort: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 10 << 20) as disk:
        done = run(cohort, disk / "run", "options.latent=2048")
        assert done.returncode == 2, done.stderr
        assert ".ckpt: the checkpoint cannot be written" in done.stderr or "best.pt: the checkpoint" in done.stderr
        assert "Traceback" not in done.stderr
        left = [path.name for path in (disk / "run" / "checkpoints").iterdir()]
        assert not [name for name in left if name.endswith(".partial")], left
        assert (disk / "run" / "run.json").exists(), "the run can go on elsewhere or once there is room"


def test_the_folder_of_another_run_is_refused_and_left_as_it_was(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from AnomalyTrainingLib.cohorts.manifest import read_manifest
    from AnomalyTrainingLib.training.config import read_config
    from AnomalyTrainingLib.training.run import _begin, _identity

    out = tmp_path / "run"
    _begin(out, _identity(read_config(cohort.with_name("config.yaml")), read_manifest(cohort), 0), False)
    before = (out / "run.json").read_bytes()
    assert main(arguments(cohort, out)) == 2
    assert "the folder holds a training run; continue it with --resume" in capsys.readouterr().err
    assert main([*arguments(cohort, out, "options.latent=9"), "--resume"]) == 2
    assert "the run in this folder had another config; choose another folder" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert main(arguments(cohort, other)) == 2
    assert "holds something other than a training run" in capsys.readouterr().err
    assert (out / "run.json").read_bytes() == before and [path.name for path in out.iterdir()] == ["run.json"]
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_a_run_goes_on_only_without_the_very_cases_that_it_left_out(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from AnomalyTrainingLib.cohorts.manifest import read_manifest
    from AnomalyTrainingLib.training.config import read_config
    from AnomalyTrainingLib.training.run import check_place, train

    config, copy = read_config(cohort.with_name("config.yaml")), tmp_path / "cohort"
    shutil.copytree(cohort.parent, copy)
    manifest = copy / cohort.name
    whole, image = read_manifest(manifest), (copy / "4.nii.gz").read_bytes()
    kept = replace(whole, cases=whole.cases[:-1])

    def stop(stage: str, share: float) -> None:
        raise KeyboardInterrupt

    for out, cases, left_out in ((tmp_path / "four", kept, ["n4"]), (tmp_path / "five", whole, [])):
        with pytest.raises(KeyboardInterrupt):
            train(config, cases, out, device="cpu", left_out=left_out, progress=stop)
        check_place(config, whole, out, seed=0, resume=True)  # before the images are read nobody knows
    again = ["--resume", "--skip-unreadable", "1"]
    assert main([*arguments(manifest, tmp_path / "four"), *again]) == 2
    assert "the run in this folder left out n4, this one leaves out no case; choose another" in capsys.readouterr().err
    (copy / "4.nii.gz").write_bytes(image[:100])
    assert main([*arguments(manifest, tmp_path / "five"), *again]) == 2
    assert "the run in this folder left out no case, this one leaves out n4; choose another" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        train(config, kept, tmp_path / "four", device="cpu", resume=True, left_out=["n4"], progress=stop)


def test_a_cohort_with_nobody_to_tell_when_to_stop_is_refused_before_anything_is_made(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = cohort.read_text().splitlines()
    alone = cohort.with_name("alone.csv")
    alone.write_text("\n".join([lines[0], lines[1], *lines[4:]]) + "\n")
    assert main(arguments(alone, tmp_path / "run")) == 2
    assert "at least 2 patients, one of them to tell when to stop" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
