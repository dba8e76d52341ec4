"""A bounded sample of vectors, whatever the number that comes."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Reservoir:
    """A uniform sample of the feature vectors seen at every place (Vitter's algorithm R, ACM TOMS 1985).

    Parameters
    ----------
    places
        Places that are sampled apart; 1 if it does not matter where a vector was.
    capacity
        Vectors kept at each place.
    width
        Numbers of a vector.
    seed
        What is kept is a function of it and of the order of the normals.

    Attributes
    ----------
    values
        (places, capacity, width) of the type `kind`; memory is taken up as it fills.
    cases
        int32 (places, capacity): the number of the case (or patient) that a vector came from.
    seen
        int64 (places,): vectors offered so far.
    """

    def __init__(self, places: int, capacity: int, width: int, seed: int, kind: DTypeLike = np.float16) -> None:
        self.values: NDArray = np.zeros((places, capacity, width), dtype=kind)
        self.cases = np.full((places, capacity), -1, dtype=np.int32)
        self.seen = np.zeros(places, dtype=np.int64)
        self.capacity, self._seed, self._calls = capacity, seed, 0

    @property
    def filled(self) -> NDArray[np.int64]:
        """Vectors held at each place, (places,)."""
        return np.minimum(self.seen, self.capacity)

    def offer(self, values: NDArray, present: NDArray[np.bool_], case: int) -> None:
        """One vector a place, (places, width), where `present` (places,)."""
        slots = self._slots(self.seen)
        taken = present & (slots < self.capacity)
        self.values[taken, slots[taken]] = values[taken]
        self.cases[taken, slots[taken]] = case
        self.seen += present

    def offer_anywhere(self, values: NDArray, case: int) -> None:
        """Any number of vectors, (n, width), for the one place there is."""
        slots = self._slots(self.seen[0] + np.arange(len(values)))
        taken = slots < self.capacity  # of vectors that are given the same slot the last one stays, as in turn
        self.values[0, slots[taken]] = values[taken]
        self.cases[0, slots[taken]] = case
        self.seen += len(values)

    def _slots(self, before: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the next vectors go when so many came before; beyond the capacity they are not kept."""
        self._calls += 1
        draws = np.random.default_rng([self._seed, self._calls]).integers(0, before + 1)
        return np.where(before < self.capacity, before, draws)
