"""Variation within a block: what differs from place to place, and persists in depth.

In real tissue no two places are alike: here cells are denser, there collagen is coarser, and
the next section of the block, a few µm deeper, has the same at the same place. Without it,
drawn stroma is the same everywhere, and nothing but the structures tells where a patch was
cut. Four independent fields v vary smoothly over a few hundred µm, with unit variance, and
are cut off at ±2:

- *cells*: cells of the stroma, thinned by up to two thirds;
- *chromatin*: the haematoxylin of all nuclei, times 1 + 0.15 v;
- *eosin*: the eosin of collagen and cytoplasm, times 1 + 0.15 v;
- *bundles*: thick bundles of collagen times 1 + 0.4 v, thin fibres times 1 - 0.4 v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_mcm.core.synthetic.chart import Chart
from napari_mcm.core.synthetic.textures import Field, smooth_noise

LENGTH = 130.0
"""Smoothing length in µm: about a patch, so that a patch is of one kind."""

MOST = 2.0
"""Fields are cut off at this many standard deviations."""

CHROMATIN, EOSIN, BUNDLES = 0.15, 0.15, 0.4


@dataclass(frozen=True)
class Variation:
    """Four fields on a chart's grid, within ±2.

    Attributes
    ----------
    cells, chromatin, eosin, bundles : ndarray of float32, shape (rows, columns)
        As in the module's description.
    """

    cells: Field
    chromatin: Field
    eosin: Field
    bundles: Field

    def moved(self, move: Callable[[Field], Field]) -> Variation:
        """Return the variation of another section of the block.

        Parameters
        ----------
        move : callable
            Takes a field of one section to the other.

        Returns
        -------
        Variation
            The same tissue, where it lies there.
        """
        fields = self.cells, self.chromatin, self.eosin, self.bundles
        return Variation(*(move(field) for field in fields))


def draw_variation(chart: Chart, rng: np.random.Generator) -> Variation:
    """Draw how a block varies.

    Parameters
    ----------
    chart : Chart
        Grid of the block's first section.
    rng : Generator
        Source of the randomness, apart from the chart's.

    Returns
    -------
    Variation
        Of the first section.
    """
    sigma = LENGTH / chart.pitch
    fields = (smooth_noise(chart.shape, sigma, rng).clip(-MOST, MOST) for _ in range(4))
    return Variation(*fields)


def thinned(variation: Variation) -> Field:
    """Return which fraction of the cells of the stroma stays.

    Parameters
    ----------
    variation : Variation
        Of the section.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        From a third to 1.
    """
    kept: Field = 1 - (MOST - variation.cells) / (2 * MOST) * np.float32(2 / 3)
    return kept
