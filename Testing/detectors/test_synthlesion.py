"""`synthlesion` knows place and other side, learns to outline what was altered in normals, and survives its bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simulated
import torch
from training.runs import run_here

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.detectors.synthlesion import SynthLesion, body_box, mirrored, places
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import write_volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import read_manifest
from AnomalyTrainingLib.training.config import AugmentSection
from AnomalyTrainingLib.training.data import PreparedCases
from AnomalyTrainingLib.training.gradient import context_of
from AnomalyTrainingLib.training.patches import Patches
from AnomalyTrainingLib.training.synthetic_data import WithSyntheticLesions, on_device

SPEC = InputSpec("patches", ("MR",), "mr-robust", spacing=(8.0, 8.0, 8.0), size=(16, 16, 16))
SMALL = {"widths": [4, 8]}
CONFIG = """
name: tiny
detector: synthlesion
few_normals: true
options: {widths: [4, 8]}
input: {kind: patches, modalities: [MR], intensity: mr-robust, grid: own, spacing: [6.0, 6.0, 6.0], size: [16, 16, 16]}
training: {epochs: 2, batch: 4, patches_per_case: 4, learning_rate: 0.01}
findings: {least_ml: 1.0}
volume_score: {fraction: 0.005}
calibration: {method: split}
baselines: none
"""


def built(**options) -> SynthLesion:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = build("synthlesion", SPEC, SMALL | options)
    assert isinstance(detector, SynthLesion)
    return detector.eval()


def body(low: int = 3, high: int = 17) -> tuple[torch.Tensor, torch.Tensor]:
    """A volume (1, 12, 14, 20) whose foreground spans `low` to `high` along its last axis."""
    foreground = torch.zeros(1, 12, 14, 20, dtype=torch.bool)
    foreground[:, 2:11, 1:13, low : high + 1] = True
    return torch.rand(1, 12, 14, 20) * foreground, foreground


def test_the_other_side_is_the_image_reflected_about_the_middle_of_the_body() -> None:
    image, foreground = body()
    box = body_box(foreground[0])
    assert box == ((2, 10), (1, 12), (3, 17))
    other = mirrored(image, box)
    assert torch.equal(other[..., 3:18], image[..., 3:18].flip(-1))
    assert torch.equal(mirrored(other, box), image)
    image, foreground = body(9, 19)
    other = mirrored(image, body_box(foreground[0]))
    assert torch.equal(other[..., 9:20], image[..., 9:20].flip(-1)) and not other[..., :8].any()


def test_the_place_runs_from_end_to_end_of_the_body_and_both_sides_are_alike() -> None:
    _, foreground = body()
    place = places(body_box(foreground[0]), (12, 14, 20))
    assert place.shape == (3, 12, 14, 20)
    assert place[0, 2, 0, 0] == -1 and place[0, 10, 0, 0] == 1 and place[0, 6, 0, 0] == 0
    assert place[1, 0, 1, 0] == -1 and place[1, 0, 12, 0] == 1
    assert place[2, 0, 0, 3] == place[2, 0, 0, 17] == 1 and place[2, 0, 0, 10] == 0
    assert place.abs().max() <= 1.5
    assert body_box(torch.zeros(4, 5, 6, dtype=torch.bool)) == ((0, 3), (0, 4), (0, 5))


@pytest.mark.parametrize(("options", "channels"), [({}, 4), ({"mirror": False}, 3), ({"position": False}, 1)])
def test_what_is_known_of_a_voxel_can_be_chosen(options: dict, channels: int) -> None:
    detector, (image, foreground) = built(**options), body()
    batch = Batch(image[None], foreground[None])
    context = detector.context(batch)
    assert context is not None and context.shape == (1, channels, 12, 14, 20) and detector.context_channels == channels
    with torch.inference_mode():
        scores = detector.score(batch).map
    assert scores is not None and (scores[batch.foreground] > 0).all() and not scores[~batch.foreground].any()


def test_without_context_the_network_sees_the_crop_alone() -> None:
    detector, (image, foreground) = built(mirror=False, position=False), body()
    assert detector.context(Batch(image[None], foreground[None])) is None and context_of(detector) is None


def test_the_other_side_changes_the_score() -> None:
    detector, (image, foreground) = built(position=False), body()
    changed = image.clone()
    changed[..., 4, 6, 16] += 1.0
    with torch.inference_mode():
        first, second = (detector.score(Batch(i[None], foreground[None])).map for i in (image, changed))
    assert first is not None and second is not None
    assert not torch.equal(first[0, 0, 4, 6, 4], second[0, 0, 4, 6, 4])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Normal heads only, and a configuration beside their manifest."""
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["case,patient,image,label,split"]
    for n, split in enumerate(["train"] * 6 + ["validate"] * 2 + ["calibrate"] * 4):
        write_volume(simulated.head(n), folder / f"{n}.nii.gz")
        lines.append(f"n{n},p{n},{n}.nii.gz,0,{split}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text(CONFIG)
    return folder / "cohort.csv"


def test_a_crop_comes_with_its_part_of_what_is_known_of_the_whole_head(cohort: Path, tmp_path: Path) -> None:
    detector = built()
    prepared = PreparedCases(read_manifest(cohort).cases[:2], SPEC, None, tmp_path, context=context_of(detector))
    for case in prepared.kept:
        whole = Batch(torch.from_numpy(np.array(case.image)).float(), torch.from_numpy(np.array(case.foreground)))
        expected = detector.context(whole)
        assert expected is not None and case.context is not None and isinstance(case.context, np.memmap)
        torch.testing.assert_close(torch.from_numpy(np.array(case.context)).float(), expected, rtol=0, atol=1e-3)
    size = (8, 8, 8)
    plain = Patches(prepared, size, 4, 0, AugmentSection(on=False)).__getitems__([(0, 2)])
    assert plain.context is not None and plain.context.shape == (1, 4, *size)
    image = np.array(prepared.kept[0].image[0, 0], dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(image, size)
    z, y, x = np.argwhere((windows == plain.image[0, 0].numpy()).all(axis=(3, 4, 5)))[0]
    known = np.array(prepared.kept[0].context[0, :, z : z + 8, y : y + 8, x : x + 8], dtype=np.float32)
    assert np.array_equal(plain.context[0].numpy(), known)


def test_lesions_of_the_other_side_are_shown_beside_every_other_crop_and_are_not_to_be_found(
    cohort: Path, tmp_path: Path
) -> None:
    detector, keys = built(), [(0, n) for n in range(8)]
    prepared = PreparedCases(read_manifest(cohort).cases[:2], SPEC, None, tmp_path, context=context_of(detector))
    patches = Patches(prepared, (16, 16, 16), 4, 0, AugmentSection(rotate_degrees=20))
    lesions = WithSyntheticLesions(patches, 0, "train", context_images=detector.context_images)
    altered, moved, without = (
        on_device(items.__getitems__(keys)) for items in (lesions, patches, WithSyntheticLesions(patches, 0, "train"))
    )
    assert altered.context is not None and moved.context is not None and altered.mask is not None
    assert altered.mask.any() and not torch.equal(altered.image, moved.image)
    assert without.mask is not None and torch.equal(altered.image, without.image)
    assert torch.equal(altered.mask, without.mask), "what is to be found is in the image alone"
    turn = torch.tensor([seed % 2 == 0 for seed in lesions.__getitems__(keys).seeds])
    differs = (altered.context != moved.context).flatten(2).any(dim=2)
    assert 0 < turn.sum() < 8 and differs[turn, 0].any() and not differs[~turn].any()
    assert not differs[:, 1:].any(), "places stay"
    assert torch.isfinite(detector.loss(altered))


@pytest.mark.parametrize("seed", range(3))
def test_brightness_and_contrast_of_the_other_side_change_with_the_image_and_places_do_not(
    cohort: Path, tmp_path: Path, seed: int
) -> None:
    detector = built()

    def the_same_side(batch: Batch) -> torch.Tensor:
        context = detector.context(batch)
        assert context is not None
        return torch.cat([batch.image, context[:, 1:]], dim=1)  # so that both must stay alike

    prepared = PreparedCases(read_manifest(cohort).cases[:2], SPEC, None, tmp_path, context=the_same_side)
    turned, strong = {"rotate_degrees": 20.0, "flip": 0.5}, {"gain": 0.4, "offset": 0.2, "gamma": 0.4}
    weak = {"gain": 0.0, "offset": 0.0, "gamma": 0.0}
    changed, plain = (
        Patches(
            prepared, (16, 16, 16), 4, seed, AugmentSection(**turned, **how), context_images=detector.context_images
        ).__getitems__([(0, n) for n in range(8)])
        for how in (strong, weak)
    )
    assert changed.context is not None and plain.context is not None
    inside = changed.foreground & (changed.image > 0)
    assert (changed.image - plain.image)[inside].abs().mean() > 0.05
    differing = (changed.context[:, :1] - changed.image).abs() > 1e-3
    assert differing.float().mean() < 0.02, "but for voxels of the foreground that are 0, and its rim"
    assert torch.equal(changed.context[:, 1:], plain.context[:, 1:])
    assert built(mirror=False).context_images == 0


def test_it_learns_to_outline_what_was_altered(cohort: Path, tmp_path: Path) -> None:
    detector = built(widths=[8, 16])
    prepared = PreparedCases(read_manifest(cohort).cases[:2], SPEC, None, tmp_path, context=context_of(detector))
    crops = WithSyntheticLesions(Patches(prepared, (16, 16, 16), 4, 0, AugmentSection(on=False)), 0, "train")
    batch = on_device(crops.__getitems__([(0, n) for n in range(6)]))
    assert batch.mask is not None
    optimiser = torch.optim.Adam(detector.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = detector.loss(batch)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert batch.context is not None
    with torch.inference_mode():
        logit = detector.network(torch.cat([batch.image, batch.context], dim=1))
    altered = batch.mask > 0
    assert logit[altered].median() > logit[batch.foreground & ~altered].quantile(0.95)


@pytest.mark.slow
def test_it_is_trained_on_normals_only_and_its_bundle_scores_the_same(cohort: Path, tmp_path: Path) -> None:
    run, chosen = tmp_path / "run", str(cohort.with_name("config.yaml"))
    run_here(["train", chosen, "--cohort", str(cohort), "--out", str(run), "--device", "cpu"])
    assert main(["export", str(run), "--out", str(tmp_path / "bundle")]) == 0
    kept, exported = load_bundle(run / "model"), load_bundle(tmp_path / "bundle")
    assert kept.info["training"]["normals"] == 6 and "abnormal cases" not in kept.info["training"]
    assert kept.detector.config() == exported.detector.config() and exported.calibration.n == 4
    volume = simulated.head(50, lesion_ras=(-30.0, 10.0, 10.0), lesion_mm=18.0)
    before, after = (Scorer(model, "cpu").score(volume) for model in (kept, exported))
    assert after.rarity.array[after.foreground].std() > 0.1
    assert np.abs(before.rarity.array - after.rarity.array).max() <= 1e-4


@pytest.mark.parametrize(
    ("spec", "options", "complaint"),
    [
        (InputSpec("slices", (), "mr-robust", size=(32, 32)), {}, "must be `kind: patches`, not 'slices'"),
        (InputSpec("patches", (), "mr-robust"), {}, "needs `size:"),
        (SPEC, {"overlap": -0.1}, "0 <= overlap < 1"),
        (SPEC, {"lesion_weight": 0.5}, "must lie in 1 to 1000"),
        (SPEC, {"mirrored": True}, "mirrored"),
    ],
)
def test_settings_that_make_no_detector_are_refused(spec: InputSpec, options: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        build("synthlesion", spec, options)
