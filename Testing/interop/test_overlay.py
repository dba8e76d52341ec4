"""The picture of a result: sides, proportions, colours, and what it says."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import numpy as np
import pydicom
import pytest
from interop.cases import GEOMETRIES, LESION_RAS, scored
from PIL import Image
from pydicom.data import get_testdata_file

from AnomalyDetectionLib.errors import OutputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.interop import overlay, views
from AnomalyDetectionLib.interop.overlay import contact_sheet, render_overlay, write_overlay
from AnomalyDetectionLib.interop.views import AS_STORED, AXIAL, CORONAL, INFERNO, SAGITTAL, Scene


def warm(picture: Image.Image) -> np.ndarray:
    """Pixels with the colours of heat."""
    r, g, b = np.moveaxis(np.asarray(picture, dtype=int), -1, 0)
    return (r > 150) & (r - b > 70) & (g < r + 5)


def panels(picture: Image.Image, scene: Scene) -> list[Image.Image]:
    """The views cut out of the finished picture (by the places where views are not background)."""
    area = np.asarray(picture)[: overlay.HEIGHT - overlay.CAPTION, : overlay.WIDTH - overlay.BAR_WIDTH]
    used = (area != np.array(overlay.BACKGROUND)).any(axis=2).any(axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], used.astype(int), [0]])))
    spans = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 60]
    assert len(spans) == len(scene.planes)
    return [picture.crop((int(a), 0, int(b), overlay.HEIGHT - overlay.CAPTION)) for a, b in spans]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_lesion_in_the_patients_left_is_at_the_viewers_right(in_geometry, geometry):
    volume = in_geometry(geometry)
    case = scored(volume, [(LESION_RAS, 9.0, 5.0)])
    (finding,) = case.result.findings
    assert finding.side == "left" and finding.centroid_ras == pytest.approx(LESION_RAS, abs=1.5)
    axial, coronal, sagittal = panels(render_overlay(volume, case.result), Scene.of(volume, case.result))
    for view in (axial, coronal):
        places = np.argwhere(warm(view))
        assert len(places) > 100 and places[:, 1].min() > 0.5 * view.width
    # Behind the middle (anterior is at the left of a sagittal view) and above it.
    places = np.argwhere(warm(sagittal))
    assert places[:, 1].mean() > 0.5 * sagittal.width and places[:, 0].mean() < 0.5 * sagittal.height


def test_front_is_up_in_the_axial_view(brain):
    case = scored(brain, [(np.array([0.0, 50.0, 10.0]), 8.0, 5.0)])
    axial = panels(render_overlay(brain, case.result), Scene.of(brain, case.result))[0]
    assert np.argwhere(warm(axial))[:, 0].mean() < 0.3 * axial.height


def test_a_normal_case_shows_no_warm_pixel_and_is_cut_through_its_rarest_voxel(brain, normal):
    rarity = normal.result.rarity.array.copy()
    rarity[40, 50, 30] = 0.9
    result = replace(normal.result, rarity=brain.with_array(rarity))
    assert Scene.of(brain, result).focus == (40, 50, 30)
    for view in panels(render_overlay(brain, result), Scene.of(brain, result)):
        assert not warm(view).any()


def test_proportions_are_those_of_the_patient(brain, left_lesion):
    """Thick slices are as tall as thin ones: the brain's width to height agrees to a slice."""

    def proportions(volume, result):
        scene = Scene.of(volume, result)
        found = []
        for plane in scene.planes:
            width, height = scene.size_mm(plane)
            view = views.draw_view(scene, plane, (round(3 * width), round(3 * height)))
            lit = np.asarray(view.convert("L")) > 40
            rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
            found.append((columns[-1] - columns[0]) / (rows[-1] - rows[0]))
        return found

    thick = Volume(brain.array[::3], brain.ijk_to_ras @ np.diag([1, 1, 3, 1.0]), "MR")
    again = scored(thick, [(LESION_RAS, 9.0, 5.0)])
    assert proportions(thick, again.result) == pytest.approx(proportions(brain, left_lesion.result), rel=0.06)


def test_findings_are_outlined_and_not_painted_over(brain, left_lesion):
    scene = Scene.of(brain, left_lesion.result)
    view = np.asarray(views.draw_view(scene, AXIAL, (380, 460)))
    outline = (view == np.array(views.OUTLINE)).all(axis=2)
    label = np.asarray(
        Image.fromarray(np.ascontiguousarray(scene.cut(scene.labels, AXIAL), dtype=np.float32)).resize(
            (380, 460), Image.Resampling.NEAREST
        )
    )
    assert outline.sum() > 60 and not outline[label > 0].any()
    j, i = np.argwhere(outline).mean(axis=0)
    assert label[round(j), round(i)] == 1


def test_the_crosshair_stands_at_the_peak(brain, left_lesion):
    scene = Scene.of(brain, left_lesion.result)
    for plane in (AXIAL, CORONAL, SAGITTAL):
        x, y = scene.place(plane, (300, 400))
        heat = np.argwhere(warm(views.draw_view(scene, plane, (300, 400))))
        assert (y, x) == pytest.approx(tuple(heat.mean(axis=0)), abs=6)


def test_a_single_slice_is_one_view_with_its_letters(brain):
    single = Volume(brain.array[50:51], brain.ijk_to_ras, "MR")
    case = scored(single, [])
    assert Scene.of(single, case.result).planes == (AXIAL,)
    assert len(panels(render_overlay(single, case.result), Scene.of(single, case.result))) == 1


def test_a_picture_of_unknown_orientation_is_shown_as_it_is_stored():
    pixels = pydicom.dcmread(get_testdata_file("RG1_UNCI.dcm")).pixel_array
    image = (pixels.max() - pixels.astype(np.float32))[np.newaxis, ::4, ::4]
    volume = Volume(image, np.eye(4), "CR", spacing_known=False, orientation_known=False)
    case = scored(volume, [(np.array([60.0, 100.0, 0.0]), 25.0, 4.5)])
    scene = Scene.of(volume, case.result)
    assert scene.planes == (AS_STORED,) and case.result.findings[0].side == "unknown"
    (view,) = panels(render_overlay(volume, case.result), scene)
    heat = np.argwhere(warm(view))
    assert heat[:, 1].mean() / view.width == pytest.approx(60 / image.shape[2], abs=0.05)
    shown = np.asarray(views.draw_view(scene, AS_STORED, image.shape[:0:-1]).convert("L"), dtype=float)
    assert np.corrcoef(shown.ravel(), image.ravel())[0, 1] > 0.9


def test_heat_is_matplotlibs_inferno():
    ours = np.array(INFERNO)
    theirs = matplotlib.colormaps["inferno"](np.linspace(0, 1, len(INFERNO)))[:, :3] * 255
    assert np.abs(ours - theirs).max() <= 4


def test_heat_grows_lighter_and_denser_with_rarity_and_starts_above_one():
    rarity = np.linspace(0, 5, 200, dtype=np.float32)
    luminance = views.shade(rarity, 5.0) @ np.array([0.2126, 0.7152, 0.0722])
    opacity = views.opacity(rarity, 3.0)
    assert (np.diff(luminance) >= -1e-3).all() and (np.diff(opacity) >= 0).all()
    assert not opacity[rarity <= 1].any() and opacity[rarity >= 3] == pytest.approx(views.STRONGEST)


def test_names_the_font_lacks_do_not_stop_the_picture(brain, normal):
    name = "Fälle/Ünïcode 患者 " + "x" * 300
    picture = render_overlay(brain, replace(normal.result, case=name))
    assert picture.size == (overlay.WIDTH, overlay.HEIGHT)
    assert overlay._plain("Fälle 患") == "Falle ?"


def test_a_contact_sheet_holds_every_picture(brain, normal, left_lesion, tmp_path):
    pictures = [render_overlay(brain, normal.result), render_overlay(brain, left_lesion.result)]
    write_overlay(brain, normal.result, tmp_path / "one.png")
    contact_sheet([*pictures, tmp_path / "one.png"], ["normal", "lesion", "again"], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        width, height = sheet.size
        heat = np.argwhere(warm(sheet.convert("RGB").crop((0, 0, width, 400))))  # above the captions
    assert width > 1900 and height > 800
    views_only = [heat[(heat[:, 1] >= start) & (heat[:, 1] < start + 850)] for start in (16, width // 2)]
    assert len(views_only[0]) == 0 and len(views_only[1]) > 300
    with Image.open(tmp_path / "one.png") as single:
        assert single.size == (overlay.WIDTH, overlay.HEIGHT)


def test_a_folder_that_is_a_file_is_one_clear_sentence(brain, normal, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_overlay(brain, normal.result, tmp_path / "taken" / "overlay.png")
