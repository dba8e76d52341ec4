"""Normals that synthetic lesions are put into when their batch has reached the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from AnomalyDetectionLib.scoring.contract import Batch
from AnomalyTrainingLib.synthesis.synthetic import Family, put_in

from .data import Batches
from .seeds import seed_of


@dataclass
class Unaltered(Batch):
    """Normals that lesions are still to be put into.

    Attributes
    ----------
    seeds, family, slices
        As `synthesis.synthetic.put_in` takes them.
    """

    seeds: tuple[int, ...] = ()
    family: Family = "train"
    slices: int = 1

    def altered(self) -> Batch:
        """The batch with its lesions, made on the device where it is."""
        plain = Batch(**{field.name: getattr(self, field.name) for field in fields(Batch)})
        return put_in(plain, self.seeds, self.family, self.slices)


class WithSyntheticLesions(Batches):
    """Another data set's normals, each with a seed for its lesions.

    Training keys are (epoch, index), so that lesions are other ones in every epoch and the same whenever it is run;
    validation keys are indices, so that every epoch is judged by the same lesions.

    Parameters
    ----------
    neighbours
        `InputSpec.neighbours` of the normals.
    """

    def __init__(self, normals: Batches, seed: int, family: Family, neighbours: int = 0) -> None:
        self._normals, self._seed, self._family = normals, seed, family
        self._slices = 2 * neighbours + 1

    def __len__(self) -> int:
        return len(self._normals)

    def __getitems__(self, keys: Sequence[Any]) -> Unaltered:
        """The batch of these keys."""
        plain = self._normals.__getitems__(keys)
        seeds = tuple(seed_of("lesions", self._family, self._seed, key) for key in keys)
        parts = {field.name: getattr(plain, field.name) for field in fields(Batch)}
        return Unaltered(**parts, seeds=seeds, family=self._family, slices=self._slices)


def on_device(batch: Batch) -> Batch:
    """What a detector is trained on, of a batch that has reached the device."""
    return batch.altered() if isinstance(batch, Unaltered) else batch
