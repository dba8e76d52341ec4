"""Bundles: whole, checked, loaded without running anything."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import simulated
import torch

from AnomalyDetectionLib.errors import InputError, OutputError
from AnomalyDetectionLib.models.bundle import load_bundle, verify_bundle, with_calibration, write_bundle
from AnomalyDetectionLib.models.manifest import manifest_hash
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def written(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_bundle(model, tmp_path_factory.mktemp("bundles") / "heads")


@pytest.fixture
def copy(written: Model, tmp_path: Path) -> Path:
    """A bundle a test may spoil."""
    folder = tmp_path / "copy"
    for path in sorted(written.path.rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(written.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """Change the manifest and make its hash right again, as someone with intent would."""
    manifest = json.loads((folder / "anomaly.json").read_text())
    manifest |= changes
    manifest["sha256"] = manifest_hash(manifest)
    (folder / "anomaly.json").write_text(json.dumps(manifest))


def test_a_bundle_scores_as_the_model_that_was_written(model: Model, written: Model) -> None:
    volume = simulated.head(60, lesion_ras=(-30, 10, 10))
    before, after = Scorer(model).score(volume), Scorer(load_bundle(written.path)).score(volume)
    assert np.array_equal(before.rarity.array, after.rarity.array)  # what was calibrated is what scores
    assert after.findings[0].side == before.findings[0].side == "left"
    assert after.model.sha256 == written.identity.sha256 != ""


def test_a_bundle_written_again_scores_to_the_last_bit_alike(written: Model, tmp_path: Path) -> None:
    again = write_bundle(load_bundle(written.path), tmp_path / "again")
    volume = simulated.head(61)
    one, two = Scorer(load_bundle(written.path)).score(volume), Scorer(again).score(volume)
    assert np.array_equal(one.rarity.array, two.rarity.array)


def test_every_file_the_design_names_is_there(written: Model) -> None:
    names = {path.relative_to(written.path).as_posix() for path in written.path.rglob("*") if path.is_file()}
    assert names == {
        "LICENSE",
        "anomaly.json",
        "configs/inference.json",
        "configs/metadata.json",
        "docs/README.md",
        "models/model.pt",
        "models/template.npz",
    }
    assert "Research use only" in (written.path / "docs" / "README.md").read_text()


META_SCHEMA = Path(__file__).with_name("meta_schema_20240725.json")
"""MONAI's schema of metadata.json, as its `public/schema` folder has it (Apache 2.0), so that nothing is fetched."""


def test_monais_own_check_accepts_the_metadata_and_refuses_what_is_spoilt(written: Model, tmp_path: Path) -> None:
    from monai.bundle import verify_metadata

    path = written.path / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    assert metadata["schema"].endswith(META_SCHEMA.name)
    schema = tmp_path / META_SCHEMA.name  # what is there is not downloaded
    shutil.copy(META_SCHEMA, schema)
    verify_metadata(str(path), filepath=str(schema))
    spoilt = tmp_path / "metadata.json"
    for key in ("version", "task", "monai_version", "network_data_format"):
        spoilt.write_text(json.dumps({k: v for k, v in metadata.items() if k != key}))
        with pytest.raises(ValueError, match=f"{key}.*required"):
            verify_metadata(str(spoilt), filepath=str(schema))
    metadata["network_data_format"]["inputs"]["image"]["num_channels"] = "one"
    spoilt.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="'one' is not"):
        verify_metadata(str(spoilt), filepath=str(schema))


def test_monai_runs_the_inference(written: Model, tmp_path: Path) -> None:
    from AnomalyDetectionLib.imaging.write import write_volume

    write_volume(simulated.head(62, lesion_ras=(30, 10, 10)), tmp_path / "image.nii.gz")
    config = written.path / "configs" / "inference.json"
    # `monai.bundle.run` is what `python -m monai.bundle run` calls; MONAI Label and the like use the workflow.
    script = "import sys; from monai.bundle import ConfigWorkflow, run; a = sys.argv; "
    script += "run(config_file=a[1], meta_file=a[2], bundle_root=a[3], input=a[4], output_dir=a[5] + '/run'); "
    script += "w = ConfigWorkflow(a[1], a[2], workflow_type='infer', bundle_root=a[3], input=a[4], "
    script += "output_dir=a[5] + '/workflow'); w.initialize(); w.run(); w.finalize(); "
    script += "assert w.network_def is w.parser.get_parsed_content('model').detector; print(w.version)"
    metadata = config.with_name("metadata.json")
    places = [config, metadata, written.path, tmp_path / "image.nii.gz", tmp_path / "out"]
    command = [sys.executable, "-c", script, *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "1.0.0"
    first, second = (json.loads((tmp_path / "out" / name / "report.json").read_text()) for name in ("run", "workflow"))
    assert first["findings"][0]["side"] == "right" and first["volume_score"] == second["volume_score"]


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.mark.parametrize("name", ["models/model.pt", "models/template.npz", "docs/README.md", "anomaly.json"])
def test_one_changed_byte_anywhere_is_noticed_and_the_file_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    place = content.index(b"1.0.0") if name == "anomaly.json" else len(content) // 2
    content[place] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{Path(name).name}.*(SHA-256 differs|damaged)"):
        load_bundle(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "models" / "model.pt").unlink()
    with pytest.raises(InputError, match=r"model\.pt: missing"):
        verify_bundle(copy)


def test_a_bundle_that_points_outside_its_folder_is_refused(copy: Path) -> None:
    files = json.loads((copy / "anomaly.json").read_text())["files"]
    rewrite_manifest(copy, files=files | {"../../secret": {"sha256": "0", "bytes": 1}})
    with pytest.raises(InputError, match="outside the bundle"):
        verify_bundle(copy)


class _Bomb:
    def __reduce__(self) -> tuple:
        return (Path("exploded").touch, ())


def test_weights_that_hold_code_are_refused_and_not_run(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(_Bomb(), copy / "models" / "model.pt")
    content = (copy / "models" / "model.pt").read_bytes()
    files = json.loads((copy / "anomaly.json").read_text())["files"]
    import hashlib

    files["models/model.pt"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    rewrite_manifest(copy, files=files)
    with pytest.raises(InputError, match=r"model\.pt: the weights do not fit"):
        load_bundle(copy)
    assert not (tmp_path / "exploded").exists()
    with zipfile.ZipFile(copy / "models" / "model.pt") as archive:  # a careless reader would have run its code:
        pickle.loads(archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl"))))
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "anomaly-bundle/9"}, "format is 'anomaly-bundle/9'"),
        ({"detector": "crystal-ball"}, "no detector named 'crystal-ball'"),
        ({"config": {"sharpness": 11}}, "sharpness"),
        ({"calibration": {}}, "incomplete"),
        ({"config": {"shape": [-1, 2, 3]}}, "incomplete or inconsistent"),
        ({"info": [1]}, "incomplete or inconsistent"),
        ({"files": {"models/model.pt": []}}, r"says nothing of models/model\.pt"),
        ({"spec": {"kind": "volume", "colour": "red"}}, "unknown key 'colour'"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_in_one_sentence(copy: Path, changes: dict, words: str) -> None:
    rewrite_manifest(copy, **changes)
    with pytest.raises(InputError, match=words) as caught:
        load_bundle(copy)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        load_bundle(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a model bundle"):
        load_bundle(tmp_path)


def test_nothing_is_overwritten_and_nothing_half_written_stays(model: Model, written: Model, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="something already"):
        write_bundle(model, written.path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_bundle(model, blocked / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_new_calibration_does_not_keep_what_was_measured_under_the_old_one(model: Model, tmp_path: Path) -> None:
    old = dataclasses.replace(model, info={**model.info, "created": "2001-01-01", "metrics": {"auroc": 0.9}})
    new = write_bundle(with_calibration(old, old.calibration, {"normals": 5}, {}), tmp_path / "new")
    assert "metrics" not in new.info and new.info["created"] > "2020"
    assert new.info["training"] == model.info["training"] and new.info["calibration"] == {"normals": 5}


def test_another_scanners_normals_recalibrate_without_retraining(written: Model, tmp_path: Path) -> None:
    calibration = calibrate(written.detector, written.template, (simulated.head(s) for s in range(70, 73)))
    other = write_bundle(with_calibration(written, calibration, {"normals": 3}, {}), tmp_path / "other")
    volume = simulated.head(63, lesion_ras=(-30, 10, 10))
    before, after = Scorer(written).score(volume), Scorer(other).score(volume)
    assert after.calibration_n == 3 and before.calibration_n == 5
    inside = before.foreground
    ranks = [np.argsort(np.argsort(r.rarity.array[inside])) for r in (before, after)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9999  # another scale, the same order
    assert after.model.sha256 != before.model.sha256
