"""Runs of `score` into one folder: gone on with, side by side, without room, and stopped half way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli.score_runs import nothing_half_written, one_sentence, score, snapshot
from limits import forbidden_folder, small_disk

from AnomalyDetectionLib.cli import folder as folder_module
from AnomalyDetectionLib.cli import score as score_module
from AnomalyDetectionLib.interop.reports import is_complete

# -- one folder, several runs


def test_results_of_an_earlier_run_are_not_touched_without_resume(
    scored: Path, bundle: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(scored)
    assert score(bundle, images / "normal.nii.gz", "--out", scored) == 2
    said = capsys.readouterr().err
    assert "--resume" in said
    assert one_sentence(said)
    assert snapshot(scored) == before


def test_something_else_under_a_cases_name_is_not_touched(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "normal").mkdir()
    (tmp_path / "normal" / "thesis.txt").write_text("mine")
    assert score(bundle, images / "normal.nii.gz", "--out", tmp_path) == 2
    assert "already something named 'normal'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["normal", "thesis.txt"]


def test_resume_keeps_complete_cases_and_redoes_half_ones(
    scored: Path, bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(scored, out)
    whole = snapshot(out / "lesion")
    (out / "normal" / "report.json").unlink()
    (out / ".normal.x.partial").mkdir()
    arguments = [bundle, images / "normal.nii.gz", images / "lesion.nii.gz", "--out", out, "--resume"]
    assert score(*arguments, progress="plain") == 0
    assert "1 scored, 1 complete before" in capsys.readouterr().out
    assert snapshot(out / "lesion") == whole
    assert is_complete(out / "normal")
    assert nothing_half_written(out)


def test_resume_scores_an_input_that_has_changed_again(
    scored: Path, bundle: Path, images: Path, tmp_path: Path
) -> None:
    image, out = tmp_path / "head.nii.gz", tmp_path / "out"
    shutil.copy(images / "normal.nii.gz", image)
    assert score(bundle, image, "--out", out) == 0
    before = json.loads((out / "head" / "report.json").read_text())["input"]["sha256"]
    shutil.copy(images / "lesion.nii.gz", image)
    assert score(bundle, image, "--out", out, "--resume") == 0
    assert json.loads((out / "head" / "report.json").read_text())["input"]["sha256"] != before


def test_resume_refuses_another_threshold_and_another_model(
    scored: Path, bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(scored)
    assert score(bundle, images / "normal.nii.gz", "--out", scored, "--resume", "--threshold", 9) == 2
    assert "was scored with the threshold" in capsys.readouterr().err
    record = json.loads((scored / "run.json").read_text())
    record["model"]["sha256"] = "0" * 64
    other = tmp_path / "other"
    shutil.copytree(scored, other)
    (other / "run.json").write_text(json.dumps(record))
    assert score(bundle, images / "normal.nii.gz", "--out", other, "--resume") == 2
    assert "was scored with another model" in capsys.readouterr().err
    assert snapshot(scored) == before


def test_two_runs_into_one_folder_are_refused(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with folder_module.OutputFolder(out):
        assert score(bundle, images / "normal.nii.gz", "--out", out) == 2
        assert [path.name for path in out.iterdir()] == [folder_module.LOCK_NAME]
    said = capsys.readouterr().err
    assert "another run writes into this folder" in said
    assert one_sentence(said)


# -- no room


def test_no_permission_is_said_before_the_work(
    bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images.chmod(0o755)
    monkeypatch.chdir(images)  # nobody may not pass through the folders above it
    with forbidden_folder(tmp_path / "forbidden") as place:
        assert score(bundle, "normal.nii.gz", "--out", place / "out") == 2
    said = capsys.readouterr().err
    assert "no permission" in said
    assert one_sentence(said)


def test_no_space_is_said_before_the_work(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", 32 << 10) as disk:
        assert score(bundle, images / "normal.nii.gz", "--out", disk / "out") == 2
        assert list(disk.iterdir()) == []
    said = capsys.readouterr().err
    assert "free some space" in said
    assert one_sentence(said)


def test_a_disk_that_fills_up_midway_keeps_what_is_whole_and_resume_goes_on(
    bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check before each case is switched off, as if another program filled the disk during the writing."""
    monkeypatch.setattr(folder_module.OutputFolder, "check_space", lambda self, needed: None)
    from AnomalyDetectionLib.interop import reports

    whole = reports.write_overlay

    def fill_the_disk(volume, result, path: Path) -> None:
        if result.case == "lesion":
            with (path.parent / "filler").open("wb") as stream:
                while True:
                    stream.write(b"\0" * 65536)
                    stream.flush()
        whole(volume, result, path)

    inputs = [images / "normal.nii.gz", images / "lesion.nii.gz"]
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        out = disk / "out"
        monkeypatch.setattr(reports, "write_overlay", fill_the_disk)
        assert score(bundle, *inputs, "--out", out) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "1 of 2 cases were done before; go on with --resume." in said
        assert is_complete(out / "normal")
        assert not (out / "lesion").exists()
        assert nothing_half_written(out)
        monkeypatch.setattr(reports, "write_overlay", whole)
        assert score(bundle, *inputs, "--out", out, "--resume") == 0
        assert is_complete(out / "lesion")


def test_too_little_room_for_the_next_case_is_said_before_scoring_it(
    bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(score_module, "BYTES_PER_VOXEL", 1 << 40)
    assert score(bundle, images / "normal.nii.gz", "--out", tmp_path / "out") == 2
    assert "MB may be needed and" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# -- stopped


def start(bundle: Path, images: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "AnomalyDetectionLib.cli", "score", str(bundle)]
    command += [str(images / "normal.nii.gz"), str(images / "lesion.nii.gz"), "--out", str(out), "--progress", "json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def read_until(child: subprocess.Popen[str], **wanted: str) -> None:
    """Read JSON lines until one has these values."""
    assert child.stdout is not None
    for line in child.stdout:
        event = json.loads(line)
        if all(event.get(key) == value for key, value in wanted.items()):
            return
    assert child.stderr is not None
    pytest.fail(f"the run ended early: {child.stderr.read()}")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("stage", ["aligning with the template", "writing"])
def test_a_run_killed_half_way_leaves_nothing_half_written_and_resumes(
    stage: str, bundle: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with start(bundle, images, out) as child:
        read_until(child, event="progress", case="lesion", stage=stage)
        child.send_signal(signal.SIGKILL)
        child.wait(30)
    assert child.returncode == -signal.SIGKILL
    assert is_complete(out / "normal")
    first = snapshot(out / "normal")
    inputs = [images / "normal.nii.gz", images / "lesion.nii.gz"]
    assert score(bundle, *inputs, "--out", out, "--resume") == 0
    assert snapshot(out / "normal") == first
    assert is_complete(out / "lesion")
    assert nothing_half_written(out)
    assert {path.name for path in out.iterdir()} == {"normal", "lesion", "run.json", "scores.csv"}


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_ends_with_130_and_keeps_what_is_whole(bundle: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(bundle, images, out) as child:
        read_until(child, event="progress", case="lesion", stage="aligning with the template")
        child.send_signal(signal.SIGINT)
        rest, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said.splitlines()[-1] == "Stopped; nothing half-written was left."
    assert json.loads(rest.splitlines()[-1]) == {"event": "error", "message": said.splitlines()[-1], "exit_code": 130}
    assert {path.name for path in out.iterdir()} == {"normal", "run.json", "scores.csv"}
    assert nothing_half_written(out)


def test_resume_goes_to_no_folder_outside_its_own(
    scored: Path, bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run.json from elsewhere names a case "../kept" whose input changed: its results would be taken away."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("precious")
    record = json.loads((scored / "run.json").read_text())
    for name in ("../kept", str(kept), "..", "a\\..\\..\\kept"):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        record["cases"] = {name: {"input": (images / "normal.nii.gz").as_posix(), "fingerprint": "another"}}
        (out / "run.json").write_text(json.dumps(record))
        assert score(bundle, images / "normal.nii.gz", "--out", out, "--resume") == 2
        assert "is damaged" in capsys.readouterr().err
    assert [path.name for path in kept.iterdir()] == ["file"]
