"""Classifiers of cells and patches: from scratch, from a masked autoencoder, from timm.

An encoder f with a linear head is trained on labelled images by cross-entropy with
label smoothing ε and, for rare classes, weights w_c or balanced sampling. Either all
weights are fine-tuned, with a learning rate that falls by a factor d from each of the L
layers to the one before it, or only the head is trained on frozen, standardised
features (linear probe)::

    p    = softmax( W (f(x) - μ) / σ + b )
    loss = - w_y Σ_c [ (1 - ε) [c = y] + ε / C ] log p_c
    lr_l = lr · d^(L - l)

Images of one field of view are near-duplicates: a field is never in two splits.
"""

from napari_mcm.core.cells.config import (
    ClassifyConfig,
    EvaluateCellsConfig,
    FitConfig,
    LabelsConfig,
    MarkedCellsConfig,
    PredictCellsConfig,
)

__all__ = [
    "ClassifyConfig",
    "EvaluateCellsConfig",
    "FitConfig",
    "LabelsConfig",
    "MarkedCellsConfig",
    "PredictCellsConfig",
]
