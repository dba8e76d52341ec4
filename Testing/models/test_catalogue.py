"""The catalogue of models: what it lists, what it takes in, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import pytest
from project.cmake_lists import CHECKOUT

from AnomalyDetectionLib.errors import InputError, OutputError
from AnomalyDetectionLib.models.bundle import load_bundle, with_calibration, write_bundle
from AnomalyDetectionLib.models.catalogue import CATALOGUE, Catalogue, Entry, catalogue_json, described
from AnomalyDetectionLib.models.manifest import manifest_hash
from AnomalyDetectionLib.scoring.model import Model

SHIPPED = CHECKOUT / "AnomalyDetection" / "Resources" / "Models"


@pytest.fixture(scope="module")
def bundle(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_bundle(model, tmp_path_factory.mktemp("bundle") / "heads").path
    assert path is not None
    return path


@pytest.fixture
def catalogue(bundle: Path, tmp_path: Path) -> Catalogue:
    """One shipped model; nothing in the user's folder, which does not exist yet."""
    shipped = tmp_path / "shipped"
    shutil.copytree(bundle, shipped / "heads")
    (shipped / CATALOGUE).write_text(json.dumps(catalogue_json([described(shipped / "heads")])))
    return Catalogue(shipped, tmp_path / "settings" / "models")


@pytest.fixture
def other(bundle: Path, model: Model, tmp_path: Path) -> Path:
    """Another model of the same name and version."""
    path = write_bundle(
        with_calibration(load_bundle(bundle), model.calibration, {"normals": 99}, {}), tmp_path / "o"
    ).path
    assert path is not None
    return path


def zipped(folder: Path, archive: Path, root: str = "") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                out.write(path, root + path.relative_to(folder).as_posix())
    return archive


def names(catalogue: Catalogue) -> list[tuple[str, bool, bool]]:
    return [(entry.title, entry.usable, entry.removable) for entry in catalogue.entries()]


def installed_files(catalogue: Catalogue) -> list[Path]:
    return sorted(catalogue.user.rglob("*")) if catalogue.user.exists() else []


def test_a_shipped_model_is_listed_with_what_its_bundle_says(catalogue: Catalogue, bundle: Path) -> None:
    (entry,) = catalogue.entries()
    manifest = json.loads((bundle / "anomaly.json").read_text())
    assert (entry.id, entry.version, entry.sha256) == ("simulated-heads", "1.0.0", manifest["sha256"])
    assert entry.modalities == ("MR",) and entry.detector == "zscore" and entry.usable and not entry.removable
    assert entry.size == sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    assert entry.threshold().default == manifest["calibration"]["threshold"]["default"]


def test_listing_checking_and_installing_need_no_torch(catalogue: Catalogue, other: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from AnomalyDetectionLib.models.catalogue import Catalogue\n"
        f"c = Catalogue({str(catalogue.shipped)!r}, {str(catalogue.user)!r})\n"
        f"c.install({str(other)!r})\n"
        "print([e.usable for e in c.entries()], [e.threshold().default for e in c.entries()])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[True, True]")


@pytest.mark.parametrize("shape", ["folder", "manifest", "zip", "zip in a folder"])
def test_a_bundle_is_installed_from_whatever_holds_it(
    catalogue: Catalogue, other: Path, tmp_path: Path, shape: str
) -> None:
    source = {
        "folder": lambda: other,
        "manifest": lambda: other / "anomaly.json",
        "zip": lambda: zipped(other, tmp_path / "a.zip"),
        "zip in a folder": lambda: zipped(other, tmp_path / "a.zip", "my model/"),
    }[shape]()
    entry = catalogue.install(source)
    assert entry.usable and entry.removable and entry.folder.parent == catalogue.user
    assert load_bundle(entry.folder).identity.sha256 == entry.sha256 == described(other).sha256
    assert [path.name for path in catalogue.user.iterdir()] == [entry.folder.name]


def test_only_what_the_bundle_lists_is_installed(catalogue: Catalogue, other: Path, tmp_path: Path) -> None:
    (other / "run_me.py").write_text("raise SystemExit")
    entry = catalogue.install(zipped(other, tmp_path / "a.zip"))
    assert not list(entry.folder.rglob("*.py"))


def test_a_model_that_is_there_is_not_installed_again(catalogue: Catalogue, bundle: Path, other: Path) -> None:
    assert catalogue.install(bundle) == catalogue.entries()[0]
    assert not catalogue.user.exists()
    assert catalogue.install(other) == catalogue.install(other)
    assert len(catalogue.entries()) == 2


def test_two_versions_of_a_model_are_kept_beside_each_other(catalogue: Catalogue, bundle: Path, other: Path) -> None:
    newer = bundle.parent / "newer"
    shutil.copytree(bundle, newer, dirs_exist_ok=True)
    manifest = json.loads((newer / "anomaly.json").read_text()) | {"version": "1.1.0"}
    (newer / "anomaly.json").write_text(json.dumps(manifest | {"sha256": manifest_hash(manifest)}))
    catalogue.install(other)
    catalogue.install(newer)
    assert [(e.id, e.version) for e in catalogue.entries()] == [
        ("simulated-heads", "1.0.0"),
        ("simulated-heads", "1.0.0"),
        ("simulated-heads", "1.1.0"),
    ]


def test_a_users_model_can_be_removed_and_a_shipped_one_cannot(catalogue: Catalogue, other: Path) -> None:
    entry = catalogue.install(other)
    catalogue.remove(entry)
    assert installed_files(catalogue) == [] and len(catalogue.entries()) == 1
    catalogue.remove(entry)  # it is gone: nothing to do
    with pytest.raises(InputError, match="part of the extension"):
        catalogue.remove(catalogue.entries()[0])
    assert catalogue.entries()[0].usable


@pytest.mark.parametrize("kind", ["gone", "file gone", "changed", "other model"])
def test_a_shipped_model_that_is_not_as_it_was_is_listed_with_the_reason(
    catalogue: Catalogue, other: Path, kind: str
) -> None:
    folder = catalogue.shipped / "heads"
    assert catalogue.entries()[0].usable
    if kind == "gone":
        shutil.rmtree(folder)
    elif kind == "file gone":
        (folder / "models" / "model.pt").unlink()
    elif kind == "changed":
        weights = folder / "models" / "model.pt"
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    else:
        shutil.rmtree(folder)
        shutil.copytree(other, folder)
    (entry,) = catalogue.entries()
    reasons = {
        "gone": "no such model folder",
        "file gone": "missing",
        "changed": "SHA-256 differs",
        "other model": "not the model of the catalogue",
    }
    assert not entry.usable and reasons[kind] in str(entry.problem)


def test_a_folder_of_the_user_that_is_no_bundle_is_listed_with_the_reason(catalogue: Catalogue) -> None:
    (catalogue.user / "stray").mkdir(parents=True)
    entry = catalogue.entries()[-1]
    assert entry.title == "stray" and "not a model bundle" in str(entry.problem) and entry.removable


def test_a_damaged_model_of_the_user_is_mended_by_installing_it_again(catalogue: Catalogue, other: Path) -> None:
    entry = catalogue.install(other)
    (entry.folder / "docs" / "README.md").write_text("changed")
    assert not catalogue.find(entry.sha256).usable  # type: ignore[union-attr]
    assert catalogue.install(other).usable
    assert names(catalogue) == [("simulated-heads", True, False), ("simulated-heads", True, True)]


def slip(archive: Path, other: Path) -> None:
    zipped(other, archive)
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr("../../evil.txt", "evil")


def absolute(archive: Path, other: Path) -> None:
    zipped(other, archive)
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr("C:/evil.txt", "evil")


def link(archive: Path, other: Path) -> None:
    zipped(other, archive)
    with zipfile.ZipFile(archive, "a") as out:
        entry = zipfile.ZipInfo("models/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(entry, "/etc/passwd")


def bomb(archive: Path, other: Path) -> None:
    """A file that is a thousand times as large as the list says."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(other.rglob("*")):
            name = path.relative_to(other).as_posix()
            if path.is_file() and name != "models/model.pt":
                out.write(path, name)
        out.writestr("models/model.pt", bytes(200_000_000))


def huge_manifest(archive: Path, other: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("anomaly.json", b" " * 60_000_000)


def twice(archive: Path, other: Path) -> None:
    zipped(other, archive)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(archive, "a") as out:
        out.writestr("models/model.pt", "other")


def many(archive: Path, other: Path) -> None:
    zipped(other, archive)
    with zipfile.ZipFile(archive, "a") as out:
        for number in range(10_001):
            out.writestr(f"junk/{number}", "")


def encrypted(archive: Path, other: Path) -> None:
    """The flag of encryption set in every header."""
    content = bytearray(zipped(other, archive).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(signature)
        while place >= 0:
            struct.pack_into("<H", content, place + offset, content[place + offset] | 1)
            place = content.find(signature, place + 4)
    archive.write_bytes(content)


def spoilt(archive: Path, other: Path) -> None:
    """Bytes changed in the middle of the packed weights."""
    zipped(other, archive)
    with zipfile.ZipFile(archive) as made:
        start = made.getinfo("models/model.pt").header_offset + 1000
    content = bytearray(archive.read_bytes())
    content[start : start + 50] = bytes(50)
    archive.write_bytes(content)


def spoilt_lzma(archive: Path, other: Path) -> None:
    """The same, packed by the other method that has errors of its own."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as out:
        for path in sorted(other.rglob("*")):
            if path.is_file():
                out.write(path, path.relative_to(other).as_posix())
        start = out.getinfo("models/model.pt").header_offset + 1000
    content = bytearray(archive.read_bytes())
    content[start : start + 50] = b"\xff" * 50
    archive.write_bytes(content)


def misnamed(archive: Path, other: Path) -> None:
    """A name that is said to be UTF-8 and is not."""
    zipped(other, archive)
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr("ä", "")
    archive.write_bytes(archive.read_bytes().replace("ä".encode(), b"\xff\xff"))


def listed_outside(archive: Path, other: Path) -> None:
    """The list itself, with a right hash, names a file elsewhere."""
    manifest = json.loads((other / "anomaly.json").read_text())
    manifest["files"]["../evil.txt"] = {"bytes": 4, "sha256": "0" * 64}
    (other / "anomaly.json").write_text(json.dumps(manifest | {"sha256": manifest_hash(manifest)}))
    zipped(other, archive)


def named_outside(archive: Path, other: Path) -> None:
    manifest = json.loads((other / "anomaly.json").read_text()) | {"id": "../../evil"}
    (other / "anomaly.json").write_text(json.dumps(manifest | {"sha256": manifest_hash(manifest)}))
    zipped(other, archive)


def two_models(archive: Path, other: Path) -> None:
    zipped(other, archive, "one/")
    with zipfile.ZipFile(archive, "a") as out:
        out.write(other / "anomaly.json", "two/anomaly.json")


def no_model(archive: Path, other: Path) -> None:
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("photo.txt", "hello")


def no_archive(archive: Path, other: Path) -> None:
    archive.write_bytes(b"PK nothing")


def without_weights(archive: Path, other: Path) -> None:
    (other / "models" / "model.pt").unlink()
    zipped(other, archive)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (slip, "names a file outside itself"),
        (absolute, "names a file outside itself"),
        (link, "holds a link"),
        (bomb, "larger than the model's list says"),
        (huge_manifest, "too large for a model's description"),
        (twice, "twice"),
        (many, "too many"),
        (encrypted, "encrypted"),
        (spoilt, "damaged|SHA-256 differs"),
        (spoilt_lzma, "the archive is damaged"),
        (misnamed, "the archive is damaged"),
        (listed_outside, "outside the bundle"),
        (named_outside, "not one of a model"),
        (two_models, "2 models"),
        (no_model, "not a model bundle"),
        (no_archive, "not a model"),
        (without_weights, "missing from the archive"),
    ],
)
def test_an_archive_that_is_hostile_or_no_model_installs_nothing(
    catalogue: Catalogue, other: Path, tmp_path: Path, make, reason: str
) -> None:
    archive = tmp_path / "archive.zip"
    make(archive, other)
    before = {path for path in tmp_path.rglob("*") if catalogue.user not in path.parents and path != catalogue.user}
    with pytest.raises(InputError, match=reason) as raised:
        catalogue.install(archive)
    assert "\n" not in str(raised.value)
    assert installed_files(catalogue) == [] and len(catalogue.entries()) == 1
    after = {path for path in tmp_path.rglob("*") if catalogue.user not in path.parents and path != catalogue.user}
    assert after - before <= {catalogue.user.parent}


def test_a_bundle_with_a_link_to_elsewhere_is_refused(catalogue: Catalogue, other: Path, tmp_path: Path) -> None:
    weights = other / "models" / "model.pt"
    weights.rename(tmp_path / "model.pt")
    weights.symlink_to(tmp_path / "model.pt")
    with pytest.raises(InputError, match="link to outside"):
        catalogue.install(other)


def test_a_folder_that_cannot_be_written_is_named(catalogue: Catalogue, other: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    closed = Catalogue(catalogue.shipped, tmp_path / "file" / "models")
    with pytest.raises(OutputError, match="models: the model cannot be installed"):
        closed.install(other)


def test_a_disk_that_is_too_small_is_named_before_anything_is_copied(
    catalogue: Catalogue, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(OutputError, match="MB are needed for this model; free some space"):
        catalogue.install(other)
    assert installed_files(catalogue) == []


@pytest.mark.parametrize("name", [".installing-0123", ".removing-0123"])
def test_what_a_killed_installation_or_removal_left_is_neither_listed_nor_kept(
    catalogue: Catalogue, other: Path, name: str
) -> None:
    left = catalogue.user / name
    shutil.copytree(other, left)
    os.utime(left, (0, 0))
    assert len(catalogue.entries()) == 1
    catalogue.install(other)
    assert not left.exists()


def test_what_another_slicer_is_clearing_away_does_not_keep_a_model_from_being_installed(
    catalogue: Catalogue, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = catalogue.user / ".installing-0123"
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [gone])  # listed, and away before it is looked at
    assert catalogue.install(other).folder.is_dir()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": "other", "models": []}', '{"schema": "slicer-anomaly/catalogue/1"}']
)
def test_a_damaged_catalogue_is_named(catalogue: Catalogue, content: str) -> None:
    (catalogue.shipped / CATALOGUE).write_text(content)
    with pytest.raises(InputError, match=r"catalogue\.json: the list of models cannot be read"):
        catalogue.entries()


def shipped_entries() -> list[Entry]:
    return Catalogue(SHIPPED, SHIPPED / "none").entries()


def test_the_shipped_catalogue_follows_its_schema() -> None:
    schema = json.loads((SHIPPED / "catalogue.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((SHIPPED / CATALOGUE).read_text()), schema)


def test_the_shipped_models_are_whole_small_and_marked_as_what_they_are() -> None:
    entries = shipped_entries()
    assert entries and all(entry.usable for entry in entries)
    assert sum(entry.size for entry in entries) < 4_000_000
    for entry in entries:
        own = described(entry.folder)
        assert own == entry
        assert entry.experimental and "imulated" in entry.description and entry.contrast in ("FLAIR", "T1")
        card = (entry.folder / "docs" / "README.md").read_text()
        for name, value in entry.figures.items():
            assert f"- {name}: {value}" in card
        assert entry.figures["normals"] >= 20 and entry.figures["with_lesions"] >= 20


def test_every_file_of_the_shipped_models_is_in_the_catalogue() -> None:
    folders = {path.name for path in SHIPPED.iterdir() if path.is_dir()}
    assert folders == {entry.folder.name for entry in shipped_entries()}
