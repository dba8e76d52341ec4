"""Messages are cut, checked and refused as the schema says; private folders are private, and none stays behind."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from project.cmake_lists import CHECKOUT

from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.worker import protocol, schema, workspace
from AnomalyDetectionLib.worker.arrays import read_volume_message, save_volume, volume_message
from AnomalyDetectionLib.worker.protocol import Lines, ProtocolError, decode, encode

HELLO = {"type": "hello", "protocol": 1, "software": "0.1.0", "python": "3.12", "torch": None, "pid": 7}
PROGRESS = {"type": "progress", "id": 1, "stage": "scoring", "fraction": 0.5, "eta_s": None}
ERROR = {"type": "error", "id": None, "kind": "fault", "message": "A sentence.", "details": ""}
POINT = [1.0, 2.0, 3.0]
VOLUME = {
    "array": {"file": "3-image.npy", "dtype": "float32", "shape": [2, 3, 4]},
    "region": None,
    "ijk_to_ras": [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    "modality": "MR",
    "units": "",
    "spacing_known": True,
    "orientation_known": False,
    "name": "n",
    "source": [],
    "notes": [],
}
SCORE = {"type": "score", "id": 3, "bundle": "/b", "device": "cpu", "threshold": None, "case": None, "volume": VOLUME}


def test_the_schema_is_one_that_jsonschema_accepts() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.schema())


def mutations(message: dict) -> list[dict]:
    """The message with each value replaced by something odd, each key missing, and one too many."""
    odd = [None, True, -1, 0, 1.5, "", "x" * 3, [], {}, "../x.npy", 10**400, [1, 2, 3, 4]]
    found = [message, {**message, "extra": 1}]
    for key in message:
        found.append({k: v for k, v in message.items() if k != key})
        found += [{**message, key: value} for value in odd]
    for key, value in message.items():
        if isinstance(value, dict):
            found += [{**message, key: inner} for inner in mutations(value)]
    return found


@pytest.mark.parametrize(
    ("message", "direction"), [(HELLO, "answer"), (PROGRESS, "answer"), (ERROR, "answer"), (SCORE, "request")]
)
def test_verdicts_are_those_of_jsonschema(message: dict, direction: str) -> None:
    definition = {"$ref": f"#/$defs/{direction}.{message['type']}", "$defs": schema.schema()["$defs"]}
    reference = jsonschema.Draft202012Validator(definition)
    refused = 0
    for candidate in mutations(message):
        try:
            schema.check(candidate, f"{direction}.{message['type']}")
            ours = True
        except schema.SchemaError:
            ours = False
            refused += 1
        assert ours == reference.is_valid(candidate), candidate
    assert 0 < refused < len(mutations(message))


@given(st.lists(st.binary(max_size=30)), st.integers(1, 9))
@settings(deadline=None)
def test_lines_come_out_the_same_however_the_bytes_are_chopped(pieces: list[bytes], step: int) -> None:
    stream = b"\n".join(pieces)
    whole, chopped = Lines(), Lines()
    expected = list(whole.feed(stream))
    got = [line for start in range(0, len(stream), step) for line in chopped.feed(stream[start : start + step])]
    assert got == expected and chopped.rest == whole.rest


def test_a_message_goes_there_and_back() -> None:
    line = encode({**ERROR, "message": "Größe 头\nzweite Zeile"})
    assert line.count(b"\n") == 1 and line.isascii()
    assert decode(line, "answer")["message"] == "Größe 头\nzweite Zeile"


@pytest.mark.parametrize(
    "line",
    [b"hello", b"[]", b"3", b"{}", b'{"type": 3}', b'{"type": "unheard"}', b"\xff\xfe", b"[" * 100_000, b"1" * 5000],
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(line, "answer")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(word: str) -> None:
    with pytest.raises(ProtocolError):
        decode(json.dumps(PROGRESS).replace("0.5", word).encode(), "answer")
    with pytest.raises(ProtocolError):
        encode({**PROGRESS, "fraction": float("nan")})


def test_a_request_is_not_taken_for_an_answer() -> None:
    with pytest.raises(ProtocolError, match=r"no message 'answer\.score'"):
        decode(encode(SCORE), "answer")


def test_a_line_without_end_is_refused_before_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_BYTES", 1000)
    lines = Lines()
    with pytest.raises(ProtocolError, match="longer than 1000"):
        for _ in range(11):
            list(lines.feed(b"x" * 100))


@pytest.mark.parametrize("name", ["../1-a.npy", "/etc/passwd", "1-a.npy\n", "1-A.npy", "owner.json", "", "1-a.npy/x"])
def test_no_name_leads_out_of_the_private_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a file"):
        workspace.file_in(tmp_path, name)


def test_folders_of_crashed_sessions_are_removed_and_no_others(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def folder(name: str, owner: object, age: float = 1000) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "owner.json").write_text(json.dumps(owner))
        (path / "1-image.npy").write_bytes(b"x")
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
        return path

    here = platform.node()
    stale = folder(workspace.PREFIX + "stale", {"pid": ended.pid, "host": here})
    kept = [
        folder(workspace.PREFIX + "alive", {"pid": os.getpid(), "host": here}),
        folder(workspace.PREFIX + "young", {"pid": ended.pid, "host": here}, age=0),
        folder(workspace.PREFIX + "elsewhere", {"pid": ended.pid, "host": here + "x"}),
        folder(workspace.PREFIX + "unsigned", "nobody"),
        folder("somebody-elses", {"pid": ended.pid, "host": here}),
    ]
    (tmp_path / (workspace.PREFIX + "link")).symlink_to(kept[-1])
    space = workspace.Workspace(tmp_path)
    assert not stale.exists()
    assert all((path / "1-image.npy").exists() for path in kept)
    space.remove()
    assert not space.path.exists()


def test_clearing_keeps_the_files_of_pending_requests(tmp_path: Path) -> None:
    space = workspace.Workspace(tmp_path)
    for name in ("1-image.npy", "12-image.npy", "12-region.npy"):
        space.file(name).write_bytes(b"x")
    space.clear(keep={12})
    assert sorted(path.name for path in space.path.glob("*.npy")) == ["12-image.npy", "12-region.npy"]


def test_the_programs_side_needs_numpy_and_nothing_else() -> None:
    code = "import sys; import AnomalyDetectionLib.worker.process; print(*{m.partition('.')[0] for m in sys.modules})"
    folder = CHECKOUT / "AnomalyDetection"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "numpy" in loaded and not loaded & {"torch", "SimpleITK", "nibabel", "pydicom", "jsonschema"}


def test_a_volume_comes_out_of_its_message_as_it_went_in(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    array, region = random.normal(size=(3, 4, 5)).astype(np.float32), random.random((3, 4, 5)) > 0.5
    affine = np.array([[-0.1, 0, 0, 1 / 3], [0, 0.2, 0, 2 / 3], [0, 0, 0.7, -1e-17], [0, 0, 0, 1]])
    facts = {"modality": "US", "units": "a.u.", "spacing_known": False, "orientation_known": False, "name": "Bild ä"}
    volume = Volume(array, affine, source=["/tmp/ä.nii"], notes=["A note."], region=region, **facts)
    save_volume(volume, tmp_path, 3)
    message = decode(encode({**SCORE, "volume": volume_message(volume, 3)}), "request")
    again = read_volume_message(message["volume"], tmp_path)
    assert again.sha256() == volume.sha256() and np.array_equal(again.ijk_to_ras, volume.ijk_to_ras)
    assert again.region is not None and again.region.dtype == bool and np.array_equal(again.region, region)
    for name in (*facts, "source", "notes"):
        assert getattr(again, name) == getattr(volume, name), name
