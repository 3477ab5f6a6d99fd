"""Which images come in which step: keyed shuffles, so that a resume sees the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Draw = tuple[int, int]
"""An epoch and the index of an image."""


def steps_of_epochs(images: int, batch_size: int, epochs: int) -> int:
    """Count steps; an epoch's last images wait for the next epoch's first."""
    return max(images * epochs // batch_size, 1)


def draws(
    images: int, batch_size: int, seed: int, start: int, stop: int
) -> Iterator[list[Draw]]:
    """Give the images of steps `start` to `stop`.

    Epochs follow each other without a gap, each in an order of its own, so that every
    step has as many images as the others.
    """
    held: dict[int, NDArray[np.int64]] = {}
    for step in range(start, stop):
        places = range(step * batch_size, (step + 1) * batch_size)
        batch = []
        for place in places:
            epoch, at = divmod(place, images)
            if epoch not in held:
                held = {k: v for k, v in held.items() if k >= epoch - 1}
                held[epoch] = np.random.default_rng((seed, epoch)).permutation(images)
            batch.append((epoch, int(held[epoch][at])))
        yield batch
