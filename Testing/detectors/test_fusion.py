"""Fitted models that add up what they find rare: by the rule, in the image's geometry, from one bundle, honestly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simulated
import torch
from training.runs import run_here

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.detectors.fusion import Fusion, common_spec
from AnomalyDetectionLib.errors import Cancelled, InputError
from AnomalyDetectionLib.imaging.write import write_volume
from AnomalyDetectionLib.models.bundle import load_bundle, with_calibration, write_bundle
from AnomalyDetectionLib.models.manifest import manifest_hash
from AnomalyDetectionLib.models.seen import patient_hash
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import read_manifest
from AnomalyTrainingLib.evaluation.overlap import Seen
from AnomalyTrainingLib.training.config import read_config


def described(
    model: Model, patients: Sequence[str], calibrated_on: Sequence[str] = (), method: str = "held-out"
) -> Model:
    """The model with what `train` would have noted of the patients it has seen."""
    used = {
        role: {"patients_sha256": sorted(map(patient_hash, names)), "images_sha256": []}
        for role, names in (("train", patients), ("calibrate", calibrated_on))
    }
    info = {"training": {"normals": len(patients)}, "calibration": {"method": method}, "used": used}
    return replace(model, info=info)


@pytest.fixture(scope="module")
def bundles(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A zscore and an autoencoder, trained on patients a to f, the second one calibrated on one of the cohort's."""
    folder = tmp_path_factory.mktemp("members")
    write_bundle(described(model, "abcdef"), folder / "zscore")
    write_bundle(described(simulated.tiny_autoencoder(), "ab", ["p30"]), folder / "autoencoder")
    return {name: folder / name for name in ("zscore", "autoencoder")}


@pytest.fixture(scope="module")
def members(bundles: dict[str, Path]) -> list[Model]:
    return [load_bundle(path) for path in bundles.values()]


@pytest.fixture(scope="module")
def fused(members: list[Model]) -> Model:
    return simulated.fused_model(*members)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three normals to calibrate on."""
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["case,patient,image,label,split,modality"]
    for n in range(30, 33):
        write_volume(simulated.head(n), folder / f"head{n}.nii.gz")
        lines.append(f"n{n},p{n},head{n}.nii.gz,0,calibrate,MR")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder / "cohort.csv"


def train(cohort: Path, out: Path, members: Sequence[Path], *changes: str) -> list[str]:
    """The words of `train brain_fusion`."""
    named = ", ".join(f'"{path}"' for path in members)
    settings = [f"options.members=[{named}]", "findings.least_ml=1.0", "baselines=none", *changes]
    sets = [word for setting in settings for word in ("--set", setting)]
    return ["train", "brain_fusion", "--cohort", str(cohort), "--out", str(out), "--device", "cpu", *sets]


RARITY = np.array([[1, 0, 3], [2, 1, 0], [0, 5, 0.5]], dtype=np.float32)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rule": "sum"}, [3, 6, 3.5]),
        ({"rule": "mean"}, [1, 2, 3.5 / 3]),
        ({"rule": "sum", "weights": [1, 2, 0.5]}, [5, 4.5, 3.25]),
        ({"rule": "mean", "weights": [1, 2, 1]}, [1.25, 1.75, 0.875]),
        ({"rule": "max-of-k"}, [2, 5, 3]),
        ({"rule": "max-of-k", "k": 2}, [1.5, 3, 1.75]),
    ],
)
def test_the_rule_adds_rarities_up(options: dict, expected: list[float]) -> None:
    combined = Fusion(InputSpec("volume", ("MR",), "mr-robust"), members=["a", "b", "c"], **options).combine(RARITY)
    assert combined.dtype == np.float32
    np.testing.assert_allclose(combined, expected, rtol=1e-6)


def test_the_map_is_the_calibrated_sum_of_the_members_maps_where_all_of_them_judge(
    fused: Model, members: list[Model]
) -> None:
    volume = simulated.head(50, lesion_ras=(-30.0, 10.0, 10.0), spacing=(3.0, 4.0, 5.0))
    result = Scorer(fused, "cpu").score(volume)
    own = [Scorer(member, "cpu").score(volume) for member in members]
    both = own[0].foreground & own[1].foreground
    assert np.array_equal(result.foreground, both) and both.sum() > 1000
    total = own[0].rarity.array[both] + own[1].rarity.array[both]
    assert np.array_equal(result.rarity.array[both], fused.calibration.calibrator(total))
    assert not result.rarity.array[~both].any() and result.rarity.grid.same_place(volume.grid)
    assert result.quality.verdict in {r.quality.verdict for r in own} and result.device == "cpu"
    assert result.midline is not None and own[0].midline is not None
    assert np.array_equal(result.midline.right, own[0].midline.right), "the midline is that of the aligned member"
    truth = np.abs(volume.array - simulated.head(50, spacing=(3.0, 4.0, 5.0)).array) > 1
    assert result.rarity.array[truth & both].mean() > result.rarity.array[both & ~truth].mean() + 1
    assert result.findings[0].side == "left"


def test_sum_and_mean_are_calibrated_to_the_same_map(fused: Model, members: list[Model]) -> None:
    volume = simulated.head(51, lesion_ras=(30.0, 10.0, 10.0))
    mean = simulated.fused_model(*members, rule="mean")
    first, second = (Scorer(model, "cpu").score(volume) for model in (fused, mean))
    assert np.abs(first.rarity.array - second.rarity.array).max() < 1e-3
    assert first.p_value == second.p_value


def test_a_fused_bundle_needs_no_other_and_scores_to_the_last_bit_alike(
    fused: Model, members: list[Model], tmp_path: Path
) -> None:
    volume = simulated.head(52, lesion_ras=(-30.0, 10.0, 10.0))
    before = Scorer(fused, "cpu").score(volume)
    write_bundle(fused, tmp_path / "fused")
    loaded = load_bundle(tmp_path / "fused")
    after, again = (Scorer(loaded, "cpu").score(volume) for _ in range(2))
    assert np.array_equal(before.rarity.array, after.rarity.array) and before.rarity.array.std() > 0.1
    assert np.array_equal(after.rarity.array, again.rarity.array)
    assert isinstance(loaded.detector, Fusion)
    for kept, member in zip(loaded.detector.members, members, strict=True):
        assert kept.identity == member.identity
        state = member.detector.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in kept.detector.state_dict().items())
    shutil.copytree(tmp_path / "fused", tmp_path / "moved")
    write_bundle(load_bundle(tmp_path / "moved"), tmp_path / "again")
    assert load_bundle(tmp_path / "again").detector.config() == loaded.detector.config()


def test_members_of_one_template_are_aligned_with_it_once(model: Model) -> None:
    other = replace(model, template=replace(model.template, image=model.template.image.copy()))  # type: ignore[type-var]
    twice = simulated.fused_model(model, other)
    assert isinstance(twice.detector, Fusion)
    first, second = twice.detector.members
    assert first.template is second.template and first.template is not None and first.template.same_as(model.template)  # type: ignore[arg-type]
    stages: list[str] = []
    Scorer(twice, "cpu").score(simulated.head(53), progress=lambda stage, _: stages.append(stage))
    assert any("aligning with the template (1 of 2)" in stage for stage in stages)
    assert not any("aligning with the template (2 of 2)" in stage for stage in stages)


def test_progress_rises_over_all_members_and_can_cancel_in_each(fused: Model) -> None:
    told: list[tuple[str, float]] = []
    Scorer(fused, "cpu").score(simulated.head(54), progress=lambda stage, share: told.append((stage, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert {"scoring (1 of 2)", "scoring (2 of 2)", "calibrating"} <= {stage for stage, _ in told}
    for number in (1, 2):

        def stop(stage: str, share: float, number: int = number) -> None:
            if stage == f"scoring ({number} of 2)":
                raise Cancelled

        with pytest.raises(Cancelled):
            Scorer(fused, "cpu").score(simulated.head(54), progress=stop)


def test_the_memory_is_that_of_the_member_that_needs_most(fused: Model, members: list[Model]) -> None:
    needed = [member.detector.memory_bytes(10**6) for member in members]
    assert fused.detector.memory_bytes(10**6) == max(needed) > min(needed)


def test_a_fusion_is_made_by_the_commands_of_every_model_and_says_what_its_members_were(
    bundles: dict[str, Path], cohort: Path, tmp_path: Path
) -> None:
    events = run_here(train(cohort, tmp_path / "run", list(bundles.values())))
    assert events[-1]["calibration_normals"] == 3
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "bundle")]) == 0
    made = load_bundle(tmp_path / "bundle")
    assert made.identity.detector == "fusion" and made.calibration.n == 3
    card = (tmp_path / "bundle" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "member 1: simulated-heads 1.0.0 (zscore, SHA-256 " in card and "fitted to 6 normals" in card
    assert "member 2: tiny 1.0.0 (autoencoder" in card and "calibrated on 3 (held-out); 1 of its" in card
    assert "Member 2, `autoencoder`:" in card and "rule: sum of rarity" in card
    everything = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "bundle").rglob("*.json")) + card
    assert str(bundles["zscore"]) not in everything, "where the members lay is nobody's business"
    with pytest.raises(InputError, match="not held out"):  # member 1 was trained on patient c
        Seen(made, "test").check_patients([replace(read_manifest(cohort).cases[0], patient="c")])
    volume = simulated.head(55, lesion_ras=(30.0, 10.0, 10.0))
    kept = load_bundle(tmp_path / "run" / "model")
    first, second = (Scorer(model, "cpu").score(volume).rarity.array for model in (kept, made))
    assert np.abs(first - second).max() <= 1e-4 and second.std() > 0.1


def test_a_member_that_has_learnt_from_a_calibration_normal_is_refused(
    model: Model, bundles: dict[str, Path], cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(described(model, ["a", "p31"]), tmp_path / "learnt")
    write_bundle(described(model, ["a"], ["p31", "p32"], "cross-conformal, 5 folds by patient"), tmp_path / "crossed")
    crossed = load_bundle(tmp_path / "crossed")
    write_bundle(with_calibration(crossed, crossed.calibration, {"normals": 5}, {}), tmp_path / "calibrated anew")
    for name, said in (
        ("calibrated anew", "2 of 3 calibration normals are ones that simulated-heads 1.0.0 was made with"),
        ("learnt", "1 of 3 calibration normals are ones that simulated-heads 1.0.0 was made with (its split 'train')"),
        ("crossed", "2 of 3 calibration normals are ones that simulated-heads 1.0.0 was fitted to"),
    ):
        out = tmp_path / f"run-{name}"
        assert main(train(cohort, out, [tmp_path / name, bundles["autoencoder"]])) == 2
        assert said in capsys.readouterr().err and not out.exists()


def test_a_decision_is_not_chosen_on_cases_that_a_member_was_fitted_to(
    model: Model, bundles: dict[str, Path], cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = cohort.read_text().splitlines()
    decisive = [f"v{n},v{n},head{n}.nii.gz,{n - 40},validate,MR" for n in (40, 41)]
    for n in (40, 41):
        write_volume(simulated.head(n), cohort.with_name(f"head{n}.nii.gz"))
    table = cohort.with_name("decided.csv")
    table.write_text("\n".join([*lines, *decisive]) + "\n")
    write_bundle(described(model, ["a", "v41"]), tmp_path / "fitted")
    write_bundle(described(model, ["a"], ["v40", "v41"], "cross-conformal, 5 folds by patient"), tmp_path / "crossed")
    for name, said in (("fitted", "1 of 2 patients whose cases decide"), ("crossed", "2 of 2 patients whose cases")):
        members = [tmp_path / name, bundles["autoencoder"]]
        assert main(train(table, tmp_path / f"run-{name}", members, "threshold.method=roc")) == 2
        assert said in capsys.readouterr().err


def test_models_that_cannot_be_fused_are_refused_in_one_sentence(
    model: Model,
    bundles: dict[str, Path],
    fused: Model,
    cohort: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    zscore = bundles["zscore"]
    write_bundle(fused, tmp_path / "fused")
    ct = replace(model.detector.spec, modalities=("CT",))
    detector = type(model.detector)(ct, **model.detector.config())
    detector.load_state_dict(model.detector.state_dict())
    write_bundle(replace(described(model, "a"), detector=detector), tmp_path / "ct")
    for members, said in (
        ([zscore, zscore], "this model is a member already"),
        ([zscore, tmp_path / "fused"], "this is a fusion itself; name its members instead"),
        ([zscore, tmp_path / "ct"], "a member is for MR, another for CT"),
        ([zscore, tmp_path / "nowhere"], "there is no such model folder"),
        ([zscore], "1 members; there must be 2 to 16"),
    ):
        assert main(train(cohort, tmp_path / "run", members)) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_the_code_of_another_package_is_neither_fused_nor_loaded(
    model: Model, bundles: dict[str, Path], cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bundles["zscore"], tmp_path / "foreign")
    path = tmp_path / "foreign" / "anomaly.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) | {"detector": "foreign"}
    path.write_text(json.dumps(manifest | {"sha256": manifest_hash(manifest)}), encoding="utf-8")
    assert main(train(cohort, tmp_path / "run", [tmp_path / "foreign", bundles["autoencoder"]])) == 2
    assert "the detector 'foreign' does not come with this software" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "content"), [("calibrator", {}), ("identity", {"id": "x"}), ("template", [0, 4, 4]), ("detector", None)]
)
def test_a_fused_bundle_whose_members_are_damaged_is_refused_when_it_is_read(
    fused: Model, tmp_path: Path, part: str, content: object
) -> None:
    write_bundle(fused, tmp_path / "fused")
    path = tmp_path / "fused" / "anomaly.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["config"]["members"][0][part] = content
    path.write_text(json.dumps(manifest | {"sha256": manifest_hash(manifest)}), encoding="utf-8")
    with pytest.raises(InputError):
        load_bundle(tmp_path / "fused")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], r"options.members is empty; name fitted models, as --set options.members=\[A,B\] does"),
        (["options.members=[a, b]", "options.rule=product"], "'options.rule'"),
        (["options.members=[a, b]", "options.weights=[1, -1]"], "weights must be 2 positive numbers"),
        (["options.members=[a, b]", "options.rule=max-of-k", "options.k=3"], "k is 3"),
        (["options.members=[a, b]", "options.rule=max-of-k", "options.weights=[1, 2]"], "max-of-k has no weights"),
        (["options.members=[a, b]", "input.kind=slices"], "take 'input' out"),
        (["options.members=[a, b]", "training.epochs=3"], "take 'training' out"),
        (["options.members=[a, b]", "calibration.method=cross"], "fitted fold by fold"),
    ],
)
def test_a_configuration_that_makes_no_fusion_is_refused(changes: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_config("brain_fusion", changes)
    assert "\n" not in str(caught.value)


def test_members_must_take_the_same_images() -> None:
    volume = InputSpec("volume", ("MR", "CT"), "mr-robust", grid="template")
    slices = InputSpec("slices", ("MR",), "mr-robust", size=(32, 32))
    assert common_spec([volume, slices]) == replace(volume, modalities=("MR",))
    assert common_spec([slices, replace(volume, modalities=())]).modalities == ("MR",)
    with pytest.raises(InputError, match="single images, another volumes"):
        common_spec([volume, replace(volume, grid="frame")])
    with pytest.raises(InputError, match="takes the channels image, another t1, flair"):
        common_spec([volume, replace(volume, channels=("t1", "flair"))])
