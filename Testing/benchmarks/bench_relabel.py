"""Time that results take the window's thread: to be made, to be shown, and to be brought to another threshold.

    python Testing/benchmarks/bench_relabel.py [--repeat 5]

The maps are those of normal brains in size and distribution (smooth noise inside an ellipsoid) with two lesions.
Times are the thread's own, whatever else runs: label map and table while dragging, the segmentation too at rest.
The window is blocked for as long as one turn of its event loop takes; each line of the first part is a turn or less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk

import harness
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.catalogue import Catalogue
from AnomalyDetectionLib.scoring.findings import Midline
from AnomalyDetectionLib.scoring.relabel import find_regions
from AnomalyDetectionLib.scoring.result import ModelIdentity, Quality, ScoreResult
from AnomalyDetectionLib.scoring.thresholds import Threshold

CASES = {"2 mm brain": ((80, 98, 83), 2.0), "240 x 240 x 155, 1 mm": ((155, 240, 240), 1.0), "256^3": ((256,) * 3, 1.0)}
THRESHOLDS = (2.0, 3.0, 4.0, 5.0)
T = TypeVar("T")
RESOURCES = Path(__file__).resolve().parents[2] / "AnomalyDetection" / "Resources"


def rarity_map(shape: tuple[int, int, int], spacing: float) -> Volume:
    """Rarities of a normal brain of 1.4 litres, and two lesions."""
    noise = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(noise), 1.6 / spacing))
    k, j, i = np.meshgrid(*[(np.arange(n) - n / 2) * spacing for n in shape], indexing="ij")
    inside = (k / 62) ** 2 + (j / 82) ** 2 + (i / 66) ** 2 < 1
    values = np.abs(smooth[inside])
    rank = np.empty(values.size, dtype=np.int64)
    rank[np.argsort(-values)] = np.arange(1, values.size + 1)
    rarity = np.zeros(shape, dtype=np.float32)
    rarity[inside] = -np.log10(rank / values.size)
    for centre, radius, peak in (((10, 20, -30), 14, 7.0), ((-5, -30, 25), 6, 5.0)):
        distance = np.sqrt((k - centre[0]) ** 2 + (j - centre[1]) ** 2 + (i - centre[2]) ** 2)
        rarity = np.maximum(rarity, (peak * np.clip(2 - 1.5 * distance / radius, 0, 1)).astype(np.float32))
    return Volume(rarity, np.diag([spacing, spacing, spacing, 1.0]), name="bench")


def result_of(rarity: Volume, thresholds: Threshold) -> ScoreResult:
    midline = Midline(np.zeros(3), np.array([1.0, 0.0, 0.0]))
    labels, findings = find_regions(rarity, 4.0, thresholds.least_size, midline)
    return ScoreResult(
        rarity=rarity,
        labels=labels,
        foreground=rarity.array > 0,
        volume_score=5.0,
        p_value=0.05,
        calibration_n=19,
        threshold=4.0,
        false_findings_per_normal=None,
        findings=findings,
        quality=Quality("good"),
        model=ModelIdentity("bench", "1.0.0", "0" * 64, "zscore"),
        device="cpu",
        thresholds=thresholds,
        midline=midline,
    )


def turn(what: str, work: Callable[..., T], *given: Any) -> T:
    """Do something and print how long it kept the thread."""
    start = time.thread_time()
    done = work(*given)
    print(f"  {what}: {1000 * (time.thread_time() - start):.0f} ms")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    harness.start()
    import slicer

    from AnomalyDetectionLib.slicer_ui.results import Results
    from AnomalyDetectionLib.slicer_ui.showing import jump_to, show
    from AnomalyDetectionLib.slicer_ui.volumes import volume_of

    views = [slicer.app.layoutManager().sliceWidget(name) for name in ("Red", "Green", "Yellow")]
    slicer.mrmlScene.Clear()
    thresholds = Catalogue(RESOURCES / "Models", RESOURCES / "none").entries()[0].threshold()
    for name, (shape, spacing) in CASES.items():
        rarity = rarity_map(shape, spacing)
        node = slicer.util.addVolumeFromArray(rarity.array, rarity.ijk_to_ras, name)
        slicer.util.setSliceViewerLayers(background=node)
        print(name)
        turn("volume read", volume_of, node)
        result = result_of(rarity, thresholds)
        results = turn("nodes made", Results.add, node, result)
        turn("layers set", show, results)
        for view in views:
            turn(f"{view.mrmlSliceNode().GetName()} rendered", view.sliceView().forceRender)
        turn("gone to a finding", jump_to, results, 1)
        for view in views:
            turn(f"{view.mrmlSliceNode().GetName()} rendered again", view.sliceView().forceRender)
        former, results = results, turn("nodes made again", Results.add, node, result)
        show(results)
        turn("former nodes removed", former.remove)
        for threshold in THRESHOLDS:
            took: dict[bool, list[float]] = {True: [], False: []}
            for dragging in [True, False] * repeat:
                start = time.thread_time()
                found = results.relabel(threshold, dragging=dragging)
                took[dragging].append(1000 * (time.thread_time() - start))
            moving, resting = np.median(took[True]), np.median(took[False])
            print(
                f"  rarity {threshold:g}: {moving:4.0f} ms dragging, {resting:4.0f} ms at rest, {len(found)} findings"
            )
        slicer.mrmlScene.Clear()


if __name__ == "__main__":
    main()
