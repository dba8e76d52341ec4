"""Normals that synthetic lesions are put into when their batch has reached the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

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
    context_images
        As `Detector.context_images`.
    """

    seeds: tuple[int, ...] = ()
    family: Family = "train"
    slices: int = 1
    context_images: int = 0

    def altered(self) -> Batch:
        """The batch with its lesions, made on the device where it is.

        In the context of every other item, by its seed, there are lesions too: in a patient the lesion is on the other
        side as seen from the healthy one, which must not be found for that.
        """
        plain = Batch(**{field.name: getattr(self, field.name) for field in fields(Batch)})
        altered = put_in(plain, self.seeds, self.family, self.slices)
        if not self.context_images or plain.context is None:
            return altered
        known, rest = plain.context.tensor_split([self.context_images], dim=1)
        others = put_in(
            replace(plain, image=known, context=None), [seed_of("context", s) for s in self.seeds], self.family
        )
        turn = torch.tensor([seed % 2 == 0 for seed in self.seeds], device=known.device)
        known = torch.where(turn.view(-1, *[1] * (known.dim() - 1)), others.image, known)
        return replace(altered, context=torch.cat([known, rest], dim=1))


class WithSyntheticLesions(Batches):
    """Another data set's normals, each with a seed for its lesions.

    Training keys are (epoch, index), so that lesions are other ones in every epoch and the same whenever it is run;
    validation keys are indices, so that every epoch is judged by the same lesions.

    Parameters
    ----------
    neighbours
        `InputSpec.neighbours` of the normals.
    context_images
        As `Detector.context_images`.
    """

    def __init__(
        self, normals: Batches, seed: int, family: Family, neighbours: int = 0, context_images: int = 0
    ) -> None:
        self._normals, self._seed, self._family = normals, seed, family
        self._slices, self._context_images = 2 * neighbours + 1, context_images

    def __len__(self) -> int:
        return len(self._normals)

    def __getitems__(self, keys: Sequence[Any]) -> Unaltered:
        """The batch of these keys."""
        plain = self._normals.__getitems__(keys)
        seeds = tuple(seed_of("lesions", self._family, self._seed, key) for key in keys)
        parts = {field.name: getattr(plain, field.name) for field in fields(Batch)}
        told: dict[str, Any] = {"slices": self._slices, "context_images": self._context_images}
        return Unaltered(**parts, seeds=seeds, family=self._family, **told)


def on_device(batch: Batch) -> Batch:
    """What a detector is trained on, of a batch that has reached the device."""
    return batch.altered() if isinstance(batch, Unaltered) else batch
