"""What several readers' answers say together: agreement, each reader and the model against truth and consensus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib import __version__

from ..curves import Rows, ranking_metrics
from ..intervals import RESAMPLES, Bootstrap, Figure, clustered_share
from .agreement import MISSING, Codes, cohen_kappa, fleiss_kappa, krippendorff_alpha
from .answers import FINDING_VERDICTS, VERDICTS, Reader
from .key import Key
from .words import sentences

SCHEMA = "slicer-anomaly/review/1"
"""Of review.json; see `schemas/review.schema.json`."""

MIDDLE = 3
"""Confidence that is taken where a reader gave a verdict and none."""

_NORMAL, _UNCERTAIN, _ABNORMAL = range(3)


@dataclass(frozen=True, eq=False)
class Table:
    """All verdicts on the cases of a form.

    Attributes
    ----------
    verdicts
        (cases, readers), codes of `VERDICTS`.
    confidence
        (cases, readers), 1 to 5; 0 without a verdict.
    labels, called
        (cases,): 0 or 1, and whether the model calls the case abnormal (-1 where it has not decided).
    """

    key: Key
    readers: Sequence[Reader]
    verdicts: Codes
    confidence: NDArray[np.int64]
    labels: NDArray[np.int64]
    called: NDArray[np.int64]
    bootstrap: Bootstrap

    @classmethod
    def of(cls, key: Key, readers: Sequence[Reader], *, resamples: int = RESAMPLES, seed: int = 0) -> Table:
        """Of checked answers."""
        verdicts = np.full((len(key.cases), len(readers)), MISSING, dtype=np.int64)
        confidence = np.zeros_like(verdicts)
        for column, reader in enumerate(readers):
            for number, case in enumerate(key.cases):
                answer = reader.answers.get(case.code)
                if answer is not None and answer.verdict is not None:
                    verdicts[number, column] = VERDICTS.index(answer.verdict)
                    confidence[number, column] = answer.confidence or MIDDLE
        labels = np.array([case.label for case in key.cases], dtype=np.int64)
        called = np.array([MISSING if c.called is None else int(c.called) for c in key.cases], dtype=np.int64)
        patients = [case.patient for case in key.cases]
        bootstrap = Bootstrap.of(patients, labels.tolist(), resamples=resamples, seed=seed)
        return cls(key, readers, verdicts, confidence, labels, called, bootstrap)

    @property
    def names(self) -> list[str]:
        """Of the readers."""
        return [reader.name for reader in self.readers]

    def consensus(self) -> Codes:
        """What most readers who have decided say of each case, (cases,), 0 or 1; -1 where as many say the other."""
        votes = [(self.verdicts == verdict).sum(axis=1) for verdict in (_NORMAL, _ABNORMAL)]
        return np.where(votes[0] == votes[1], MISSING, (votes[1] > votes[0]).astype(np.int64))

    def figure(
        self, kept: NDArray[np.bool_], sample: Callable[[NDArray[np.float32]], Rows], why: str, *, ranks: bool = False
    ) -> dict[str, Any]:
        """A figure over some of the cases, drawn by patient; `why` it is not defined where it is not.

        One that ranks the two classes rests on the patients of the one that has fewer.
        """
        if not kept.any():
            return Figure.undefined("nobody has read such a case").to_json()
        patients = [case.patient for case, inside in zip(self.key.cases, kept, strict=True) if inside]
        rows = sample(self.bootstrap.weights(patients))
        behind = len(set(patients))
        if ranks:
            cases = [case for case, inside in zip(self.key.cases, kept, strict=True) if inside]
            behind = min(len({case.patient for case in cases if case.label == label}) for label in (0, 1))
        return self.bootstrap.figure(rows, clusters=behind, undefined=why).to_json()


def analyse(key: Key, readers: Sequence[Reader], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """The content of review.json.

    Parameters
    ----------
    readers
        From `answers.read_readers`, one or more.
    """
    table = Table.of(key, readers, resamples=resamples, seed=seed)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "software": {"name": "slicer-anomaly", "version": __version__},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "form": key.form,
        "with_map": key.with_map,
        "manifest": key.manifest,
        "model": None if key.model is None else dict(key.model),
        "bootstrap": {"resamples": resamples, "level": table.bootstrap.level, "cluster": "patient", "seed": seed},
        "cases": len(key.cases),
        "normal": int((table.labels == 0).sum()),
        "abnormal": int((table.labels == 1).sum()),
        "readers": {name: _reader(table, column) for column, name in enumerate(table.names)},
        "pairs": [_pair(table, one, other) for one, other in combinations(range(len(readers)), 2)],
        "agreement": _agreement(table),
        "model_reading": _model(table),
        "findings": _findings(table),
    }
    return {**report, "sentences": sentences(report)}


# -- readers against the truth


def _reader(table: Table, column: int) -> dict[str, Any]:
    verdicts = table.verdicts[:, column]
    decided = (verdicts == _NORMAL) | (verdicts == _ABNORMAL)
    sign = np.where(verdicts == _ABNORMAL, 1, np.where(verdicts == _NORMAL, -1, 0))
    rating = (sign * table.confidence[:, column]).astype(np.float64)
    read = verdicts != MISSING
    auroc = table.figure(
        read,
        lambda weights: ranking_metrics(table.labels[read], rating[read], weights)["auroc"],
        "only cases of one class were read",
        ranks=True,
    )
    return {
        "read": int(read.sum()),
        "uncertain": int((verdicts == _UNCERTAIN).sum()),
        **_against(table, verdicts == _ABNORMAL, decided, table.labels),
        "auroc": auroc,
    }


def _against(table: Table, calls: NDArray[np.bool_], kept: NDArray[np.bool_], truth: Codes) -> dict[str, Any]:
    """Sensitivity and specificity of calls on some cases, with exact intervals that count patients."""
    found = {}
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        inside = kept & (truth == label)
        patients = [case.patient for case, member in zip(table.key.cases, inside, strict=True) if member]
        right = calls[inside] if label else ~calls[inside]
        figure = clustered_share(right, patients, table.bootstrap.level)
        found[name] = figure.to_json()
    return found


# -- readers among each other


def _pair(table: Table, one: int, other: int) -> dict[str, Any]:
    first, second = table.verdicts[:, one], table.verdicts[:, other]
    both = (first != MISSING) & (second != MISSING)
    kappa = table.figure(
        both,
        lambda weights: cohen_kappa(first[both], second[both], weights, len(VERDICTS)),
        "both say the same of every case they have read: there is no agreement beyond chance to speak of",
    )
    agreed = table.figure(both, lambda weights: _share(first[both] == second[both], weights), "")
    counts = np.zeros((len(VERDICTS), len(VERDICTS)), dtype=np.int64)
    np.add.at(counts, (first[both], second[both]), 1)
    return {
        "readers": [table.names[one], table.names[other]],
        "cases": int(both.sum()),
        "agreed": agreed,
        "kappa": kappa,
        "counts": counts.tolist(),
    }


def _share(right: NDArray[np.bool_], weights: NDArray[np.float32]) -> Rows:
    total = weights.sum(axis=1, dtype=np.float64)
    total[total == 0] = np.nan
    return np.asarray(weights @ right.astype(np.float64) / total)


def _agreement(table: Table) -> dict[str, Any] | None:
    """Of all readers together; None with fewer than two who gave verdicts on cases."""
    readers = (table.verdicts != MISSING).any(axis=0)
    verdicts = table.verdicts[:, readers]
    if verdicts.shape[1] < 2:
        return None
    whole = (verdicts != MISSING).all(axis=1)
    why = "everybody says the same of every case"
    fleiss = table.figure(whole, lambda weights: fleiss_kappa(verdicts[whole], weights, len(VERDICTS)), why)
    paired = (verdicts != MISSING).sum(axis=1) > 1
    alpha = table.figure(paired, lambda weights: krippendorff_alpha(verdicts[paired], weights, len(VERDICTS)), why)
    return {
        "readers": int(readers.sum()),
        "read_by_all": int(whole.sum()),
        "fleiss_kappa": fleiss,
        "read_by_two": int(paired.sum()),
        "krippendorff_alpha": alpha,
    }


def _model(table: Table) -> dict[str, Any] | None:
    """The model against the truth and against what most readers say; None where it has not decided."""
    if (table.called == MISSING).any():
        return None
    consensus, called = table.consensus(), table.called == 1
    agreed = consensus != MISSING
    kappa = table.figure(
        agreed,
        lambda weights: cohen_kappa(table.called[agreed], consensus[agreed], weights, 2),
        "model and readers say the same of every case",
    )
    read = (table.verdicts != MISSING).any(axis=1)
    everywhere = np.ones(called.shape, dtype=bool)
    return {
        "against_truth": _against(table, called, everywhere, table.labels),
        "consensus": int(agreed.sum()),
        "no_consensus": int((read & ~agreed).sum()),
        "kappa": kappa,
        "against_consensus": _against(table, called, agreed, consensus),
        "consensus_against_truth": _against(table, consensus == 1, agreed, table.labels),
    }


# -- findings


def _findings(table: Table) -> dict[str, Any] | None:
    """What readers say of the model's findings; None where none was shown."""
    places = [(number, finding) for number, case in enumerate(table.key.cases) for finding in case.findings]
    if not places:
        return None
    verdicts = np.full((len(places), len(table.readers)), MISSING, dtype=np.int64)
    for column, reader in enumerate(table.readers):
        for row, (number, finding) in enumerate(places):
            answer = reader.answers.get(table.key.cases[number].code)
            if answer is not None and finding.number in answer.findings:
                verdicts[row, column] = FINDING_VERDICTS.index(answer.findings[finding.number])
    truth = np.array([MISSING if finding.true is None else int(finding.true) for _, finding in places])
    patients = [table.key.cases[number].patient for number, _ in places]
    readers = {name: _of_findings(verdicts[:, n], truth, patients, table) for n, name in enumerate(table.names)}
    paired = (verdicts != MISSING).sum(axis=1) > 1
    alpha = Figure.undefined("no finding was judged by two readers")
    if paired.any():
        judged = [patient for patient, kept in zip(patients, paired, strict=True) if kept]
        rows = krippendorff_alpha(verdicts[paired], table.bootstrap.weights(judged), len(FINDING_VERDICTS))
        why = "everybody says the same of every finding"
        alpha = table.bootstrap.figure(rows, clusters=len(set(judged)), undefined=why)
    return {"shown": len(places), "readers": readers, "judged_by_two": int(paired.sum()), "alpha": alpha.to_json()}


def _of_findings(verdicts: Codes, truth: Codes, patients: Sequence[str], table: Table) -> dict[str, Any]:
    """Counts, the share that a reader takes for true, and how often that is the truth where it is known."""
    false, _, true = range(3)
    decided = (verdicts == false) | (verdicts == true)
    known = decided & (truth != MISSING)

    def share(right: NDArray[np.bool_], kept: NDArray[np.bool_]) -> dict[str, Any]:
        whose = [patient for patient, inside in zip(patients, kept, strict=True) if inside]
        return clustered_share(right[kept], whose, table.bootstrap.level).to_json()

    return {
        **{word: int((verdicts == code).sum()) for code, word in enumerate(FINDING_VERDICTS)},
        "taken_for_true": share(verdicts == true, decided),
        "as_the_truth": share((verdicts == true) == (truth == 1), known),
    }
