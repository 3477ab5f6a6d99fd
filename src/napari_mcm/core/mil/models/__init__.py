"""Aggregators: networks that map the patches of a slide to its class scores."""

from __future__ import annotations

from napari_mcm.core.encoders.seeding import seeded
from napari_mcm.core.mil.config import AggregatorConfig
from napari_mcm.core.mil.models.abmil import ABMIL
from napari_mcm.core.mil.models.base import Aggregated, Aggregator, seed_dropout
from napari_mcm.core.mil.models.clam import CLAMMB, CLAMSB
from napari_mcm.core.mil.models.dsmil import DSMIL
from napari_mcm.core.mil.models.pooling import MaxPooling, MeanPooling
from napari_mcm.core.mil.models.transmil import TransMIL

__all__ = [
    "ABMIL",
    "CLAMMB",
    "CLAMSB",
    "DSMIL",
    "Aggregated",
    "Aggregator",
    "MaxPooling",
    "MeanPooling",
    "TransMIL",
    "make_aggregator",
    "seed_dropout",
]


def make_aggregator(
    config: AggregatorConfig, dim: int, classes: int, seed: int = 0
) -> Aggregator:
    """Create an aggregator whose initial weights depend on a seed only.

    Parameters
    ----------
    config : AggregatorConfig
        Which aggregator, and its sizes.
    dim, classes : int
        Length of a feature vector; number of classes.
    seed : int, optional
        Random seed of the weights.

    Returns
    -------
    Aggregator
        On the CPU, in training mode.
    """
    with seeded(seed):
        return _make(config.settled, dim, classes)


def _make(config: AggregatorConfig, dim: int, classes: int) -> Aggregator:
    hidden, width, dropout = config.hidden, config.width, config.dropout
    assert hidden != "auto" and width != "auto" and dropout != "auto"
    if config.model == "mean":
        return MeanPooling(dim, classes, hidden, dropout)
    if config.model == "max":
        return MaxPooling(dim, classes, hidden, dropout)
    if config.model == "abmil":
        return ABMIL(dim, classes, hidden, width, dropout)
    if config.model == "transmil":
        return TransMIL(dim, classes, hidden, config.landmarks, dropout)
    if config.model == "dsmil":
        return DSMIL(dim, classes, width, dropout)
    kind = CLAMSB if config.model == "clam_sb" else CLAMMB
    return kind(
        dim,
        classes,
        hidden,
        width,
        dropout,
        instances=config.instances,
        weight=config.instance_weight,
        loss=config.instance_loss,
        subtyping=config.subtyping,
    )
