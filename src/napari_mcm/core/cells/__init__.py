"""Classifiers of cells and patches: from scratch, from a masked autoencoder, from timm."""

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
