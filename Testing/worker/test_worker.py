"""Scores that come through a worker are those of the direct call; it can be watched, stopped and used again."""

from __future__ import annotations

import dataclasses
import gc
import shutil
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from worker.conftest import assert_same

from AnomalyDetectionLib.errors import Cancelled, InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.relabel import relabelled
from AnomalyDetectionLib.scoring.result import ScoreResult
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyDetectionLib.worker import schema
from AnomalyDetectionLib.worker.client import Progress
from AnomalyDetectionLib.worker.process import Worker


def folder_of(worker: Worker) -> Path:
    workspace = worker.client._workspace
    assert workspace is not None
    return workspace.path


def files_of(worker: Worker) -> list[str]:
    return sorted(path.name for path in folder_of(worker).glob("*.npy"))


def test_a_worker_greets_with_its_versions_before_it_imports_torch(worker: Worker) -> None:
    start = time.monotonic()
    assert worker.ping()
    assert time.monotonic() - start < 6
    hello = worker.client.hello
    assert hello is not None
    import torch

    from AnomalyDetectionLib import __version__

    assert (hello["protocol"], hello["software"], hello["torch"]) == (1, __version__, torch.__version__)
    maps = Path(f"/proc/{hello['pid']}/maps")
    if maps.exists():
        assert "libtorch" not in maps.read_text()


def test_every_field_of_a_result_travels() -> None:
    names = {field.name for field in dataclasses.fields(ScoreResult)}
    assert set(schema.schema()["$defs"]["scored"]["properties"]) == names
    names = {field.name for field in dataclasses.fields(Volume)} - {"grid"}
    assert set(schema.schema()["$defs"]["volume"]["properties"]) == names


def test_two_models_by_turns_score_as_the_direct_call_does(
    worker: Worker, zscore_bundle: Path, autoencoder_bundle: Path, lesioned: Volume
) -> None:
    for bundle in (zscore_bundle, autoencoder_bundle, zscore_bundle):
        direct = Scorer(load_bundle(bundle), "cpu").score(lesioned, case="a case")
        assert_same(direct, worker.score(lesioned, bundle, device="cpu", case="a case"))
    assert [Path(entry["bundle"]) for entry in worker.models()] == [autoencoder_bundle, zscore_bundle]
    assert worker.unload(autoencoder_bundle) == 1 and len(worker.models()) == 1
    assert not files_of(worker)


def test_the_threshold_asked_for_is_used_and_live_relabelling_agrees_with_it(
    worker: Worker, zscore_bundle: Path, lesioned: Volume
) -> None:
    low = worker.score(lesioned, zscore_bundle, threshold=2.0)
    default = worker.score(lesioned, zscore_bundle)
    again = relabelled(default, 2.0)
    assert low.threshold == 2.0 and len(low.findings) > len(default.findings)
    assert again.findings == low.findings and np.array_equal(again.labels, low.labels)


def test_everything_a_volume_carries_arrives(worker: Worker, autoencoder_bundle: Path, lesioned: Volume) -> None:
    region = np.ones(lesioned.shape, bool)
    region[:, :3] = False
    volume = dataclasses.replace(
        *(lesioned,),
        modality="",
        units="a.u.",
        spacing_known=False,
        orientation_known=False,
        name="Bild ä",
        source=("/tmp/ä.nii",),
        notes=("A note.",),
        region=region,
    )
    direct = Scorer(load_bundle(autoencoder_bundle), "cpu").score(volume)
    assert any("does not say its modality" in note for note in direct.notes)
    assert direct.findings == () or direct.findings[0].side == "unknown"
    assert_same(direct, worker.score(volume, autoencoder_bundle, device="cpu"))


def test_progress_rises_through_named_stages_to_the_end(worker: Worker, zscore_bundle: Path, lesioned: Volume) -> None:
    worker.unload()
    seen: list[Progress] = []
    worker.score(lesioned, zscore_bundle, progress=seen.append)
    fractions = [news.fraction for news in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] > 0.9
    stages = list(dict.fromkeys(news.stage for news in seen))
    assert stages[0] == "loading the model" and "aligning with the template" in stages
    assert stages[-1] == "handing the result over"
    assert all(news.seconds_left is None or news.seconds_left >= 0 for news in seen)


def test_cancel_answers_within_a_second_keeps_the_worker_and_leaves_no_file(
    worker: Worker, zscore_bundle: Path, lesioned: Volume
) -> None:
    worker.load(zscore_bundle)
    assert worker.client.hello is not None
    pid = worker.client.hello["pid"]
    asked: list[float] = []

    def stop(news: Progress) -> None:
        if news.stage == "aligning with the template":
            asked.append(time.monotonic())
            raise Cancelled

    with pytest.raises(Cancelled):
        worker.score(lesioned, zscore_bundle, progress=stop)
    assert time.monotonic() - asked[0] < 1.0
    assert worker.client.hello is not None and worker.client.hello["pid"] == pid, "it was killed"
    assert not files_of(worker)
    assert worker.score(lesioned, zscore_bundle).findings


def test_a_request_that_waits_can_be_cancelled_and_the_one_before_it_goes_on(
    worker: Worker, zscore_bundle: Path, lesioned: Volume
) -> None:
    from AnomalyDetectionLib.worker.client import Watcher

    outcome: list[str] = []
    watcher = Watcher(done=lambda value: outcome.append("done"), failed=lambda failure: outcome.append(failure.kind))
    waiting: list[int] = []

    def queue_another(news: Progress) -> None:
        if not waiting:
            waiting.append(worker.client.score(lesioned, zscore_bundle, watcher))
            worker.client.cancel(waiting[0])

    assert worker.score(lesioned, zscore_bundle, progress=queue_another).findings
    assert outcome == ["cancelled"] and not worker.client.is_busy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modality": "CT"}, "the image is CT, the model was made for MR"),
        ({"array": np.full((20, 20, 20), 3.0)}, "every voxel has the value 3"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_in_the_same_words(
    worker: Worker, zscore_bundle: Path, lesioned: Volume, changes: dict, words: str
) -> None:
    volume = dataclasses.replace(lesioned, **changes)
    with pytest.raises(InputError, match=words) as direct:
        Scorer(load_bundle(zscore_bundle), "cpu").score(volume)
    with pytest.raises(InputError, match=words) as through_worker:
        worker.score(volume, zscore_bundle)
    assert str(through_worker.value) == str(direct.value)
    assert not files_of(worker)


def test_a_wrong_bundle_device_or_threshold_is_one_sentence_and_the_worker_lives(
    worker: Worker, zscore_bundle: Path, lesioned: Volume, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        worker.score(lesioned, tmp_path / "gibt es nicht")
    with pytest.raises(InputError, match="no device 'abacus'"):
        worker.score(lesioned, zscore_bundle, device="abacus")
    with pytest.raises(InputError, match="rarity above 0"):
        worker.score(lesioned, zscore_bundle, threshold=-1.0)
    assert worker.ping()


def test_a_loaded_bundle_is_read_again_when_it_changed_and_refused_when_a_file_is_gone(
    worker: Worker, zscore_bundle: Path, autoencoder_bundle: Path, lesioned: Volume, tmp_path: Path
) -> None:
    folder = tmp_path / "changing"
    shutil.copytree(zscore_bundle, folder)
    assert worker.score(lesioned, folder).model.detector == "zscore"
    shutil.rmtree(folder)
    shutil.copytree(autoencoder_bundle, folder)
    assert worker.score(lesioned, folder).model.detector == "autoencoder"
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(InputError, match="missing from the model"):
        worker.score(lesioned, folder)


def test_the_devices_of_the_machine_are_listed(worker: Worker) -> None:
    names = [device["name"] for device in worker.devices()]
    assert names[0] == "cpu"


def test_a_result_outlives_the_worker_and_its_files(zscore_bundle: Path, lesioned: Volume, worker: Worker) -> None:
    result = worker.score(lesioned, zscore_bundle)
    folder = folder_of(worker)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = result.rarity.array.copy()
    worker.close()
    assert not folder.exists()
    assert np.array_equal(result.rarity.array, before)
    result.labels[0, 0, 0] = 7  # writable, as a view that recolours it needs
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert folder.name in maps.read_text()
        del result
        gc.collect()
        assert folder.name not in maps.read_text(), "the room of a result is not given back"
    assert worker.ping(), "it starts again after close"
