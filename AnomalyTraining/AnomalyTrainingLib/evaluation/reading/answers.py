"""Readers' answers: files that came back from anywhere, checked before anything is believed.

A form's JSON or CSV, or the `review.csv` that the Slicer module writes beside the results of a case.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.errors import InputError

from ..schema import fault
from .form import ANSWERS_SCHEMA
from .key import Key, read_json

VERDICTS = ("normal", "uncertain", "abnormal")
FINDING_VERDICTS = ("false", "unsure", "true")
CSV_COLUMNS = ("form", "reader", "case", "verdict", "confidence", "findings", "comment")

SLICER_DECISIONS = {"accept": "true", "unsure": "unsure", "reject": "false", "": None}
SLICER_COLUMNS = ("case", "label", "review", "comment")
SLICER_NAME = "review.csv"

_MEND = "give the file that the form saved"
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Answer:
    """What a reader says of a case; `findings` from number to one of `FINDING_VERDICTS`."""

    verdict: str | None = None
    confidence: int | None = None
    findings: Mapping[int, str] = field(default_factory=dict)
    comment: str = ""


@dataclass(frozen=True)
class Reader:
    """A reader and the answers by the cases' codes; `place` is the file or folder they came from."""

    name: str
    answers: Mapping[str, Answer]
    place: Path


def read_readers(key: Key, files: Sequence[Path], folders: Mapping[str, Path]) -> list[Reader]:
    """The readers of some files of answers, and of folders of the Slicer module's exports by the readers' names.

    Raises
    ------
    InputError
        If a file is damaged or of another form, or two are of one reader.
    """
    readers = [read_answers(key, path) for path in files]
    readers += [read_exports(key, name, folder) for name, folder in folders.items()]
    taken: dict[str, Path] = {}
    for reader in readers:
        name = reader.name.casefold()
        if name in taken:
            raise InputError(
                f"{reader.place}: the reader {reader.name!r} has answers in {taken[name]} already; leave one of the "
                "two out, or correct the name in it."
            )
        taken[name] = reader.place
    if not readers:
        raise InputError("There are no answers to analyse; give files with --answers or folders with --slicer.")
    return readers


def read_answers(key: Key, path: Path) -> Reader:
    """The answers in a file that a form has saved, JSON or CSV.

    Raises
    ------
    InputError
        If it is no such file, is of another form, or answers what was not asked.
    """
    data = _from_csv(path) if path.suffix.lower() == ".csv" else read_json(path, _MEND)
    if found := fault(data, "review_answers"):
        raise InputError(f"{path}: these are no answers of a form ({found}); {_MEND}.")
    if data["form"] != key.form:
        raise InputError(
            f"{path}: these are answers to the form {data['form'][:40]!r}, and the key is that of {key.form!r}; "
            "give the key that was made with their form."
        )
    answers: dict[str, Answer] = {}
    for row in data["answers"]:
        code = row["case"]
        if code in answers:
            raise InputError(f"{path}: the case {code!r} is answered twice; take one of the two out.")
        answers[code] = _checked(key, path, row)
    return Reader(data["reader"].strip() or "?", answers, path)


def _checked(key: Key, path: Path, row: Mapping[str, Any]) -> Answer:
    code, known = row["case"], key.by_code()
    if code not in known:
        raise InputError(f"{path}: there is no case {code!r} in the form; was the file changed?")
    asked = {finding.number for finding in known[code].findings}
    findings: dict[int, str] = {}
    for finding in row["findings"]:
        number = finding["number"]
        if number not in asked or number in findings:
            problem = "twice" if number in findings else "though the case has no such finding"
            raise InputError(f"{path}: case {code}, finding {number} is answered {problem}; was the file changed?")
        findings[number] = finding["verdict"]
    return Answer(row["verdict"], row["confidence"], findings, row["comment"])


def _from_csv(path: Path) -> dict[str, Any]:
    """The rows of a CSV in the layout of the JSON file, not checked yet."""
    rows = list(_rows(path, CSV_COLUMNS))
    if not rows:
        raise InputError(f"{path}: there is no answer in it; {_MEND}.")
    for name in ("form", "reader"):
        if len(found := {row[name] for row in rows}) > 1:
            shown = " and ".join(sorted(found)[:2])
            raise InputError(f"{path}: the rows are of more than one {name} ({shown}); {_MEND}.")
    return {
        "schema": ANSWERS_SCHEMA,
        "form": rows[0]["form"],
        "reader": _plain(rows[0]["reader"]),
        "answers": [
            {
                "case": row["case"],
                "verdict": row["verdict"] or None,
                "confidence": _number(row["confidence"]),
                "findings": [_finding(path, cell) for cell in row["findings"].split(";") if cell.strip()],
                "comment": _plain(row["comment"]),
            }
            for row in rows
        ],
    }


def _finding(path: Path, cell: str) -> dict[str, Any]:
    number, separator, verdict = cell.partition("=")
    if not separator:
        raise InputError(f"{path}: {cell[:40]!r} is no answer on a finding, such as '1=true'; {_MEND}.")
    return {"number": _number(number), "verdict": verdict.strip()}


def _number(cell: str) -> int | str | None:
    """A whole number; other text stays what it is, for the schema to complain of."""
    text = cell.strip()
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else text or None


def _plain(cell: str) -> str:
    """Without the apostrophe that keeps a spreadsheet from running it."""
    return cell[1:] if re.match(r"'[=+\-@\t\r]", cell) else cell


def _rows(path: Path, columns: Sequence[str]) -> Iterable[dict[str, str]]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: the file is too large; {_MEND}.")
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header, rows = reader.fieldnames, list(reader)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; {_MEND}.") from error
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror or error}).") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: this is no table of answers ({error}); {_MEND}.") from error
    if list(header or ()) != list(columns):
        raise InputError(f"{path}: the columns are not {', '.join(columns)}; {_MEND}.")
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path}: a row has more or fewer cells than there are columns; {_MEND}.")
    return rows


# -- the Slicer module's exports


def read_exports(key: Key, name: str, folder: Path) -> Reader:
    """The decisions on findings in a folder with one folder a case, as the Slicer module exports them.

    Raises
    ------
    InputError
        If there is none, or one was made by another model or at another threshold: its findings are then others.
    """
    code_of = {case.case: case.code for case in key.cases}
    answers: dict[str, Answer] = {}
    for path in sorted(folder.glob(f"*/{SLICER_NAME}")):
        _check_report(key, path.with_name("report.json"))
        for row in _rows(path, SLICER_COLUMNS):
            code = code_of.get(_plain(row["case"]))
            if code is None:
                raise InputError(f"{path}: the case {row['case'][:80]!r} is not in the form; leave its folder out.")
            number, decision = _number(row["label"]), row["review"]
            if decision not in SLICER_DECISIONS or not isinstance(number, int):
                raise InputError(f"{path}: {decision[:40]!r} is no decision on a finding; export the case again.")
            kept = answers.get(code, Answer())
            if (verdict := SLICER_DECISIONS[decision]) is not None:
                one = {
                    "case": code,
                    "verdict": None,
                    "confidence": None,
                    "findings": [{"number": number, "verdict": verdict}],
                    "comment": "",
                }
                made = _checked(key, path, one)
                if number in kept.findings:
                    raise InputError(f"{path}: the finding {number} is decided twice; export the case again.")
                answers[code] = Answer(findings={**kept.findings, **made.findings})
    if not answers:
        raise InputError(f"{folder}: there is no {SLICER_NAME} with a decision in its folders; export the cases first.")
    return Reader(name, answers, folder)


def _check_report(key: Key, path: Path) -> None:
    report = read_json(path, "export the case again")
    try:
        model, threshold = report["model"]["sha256"], float(report["threshold"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: this is no report of a case; export the case again.") from error
    if key.model is None or model != key.model["sha256"]:
        raise InputError(
            f"{path}: the case was scored by another model than that of the form; its findings are others."
        )
    if key.threshold is None or abs(threshold - key.threshold) > 1e-6:
        raise InputError(
            f"{path}: the findings were made at the threshold {threshold:g}, those of the form at "
            f"{'none' if key.threshold is None else format(key.threshold, 'g')}; export the case at that threshold."
        )
