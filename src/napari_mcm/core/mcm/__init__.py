"""Masked context modelling with knowledge distillation (MCM-KD).

Pisula & Bozek, "Masked context modelling with knowledge distillation", arXiv 2403.05325.
"""

from napari_mcm.core.mcm.config import (
    ContextConfig,
    FinetuneConfig,
    OptimiserConfig,
    TargetConfig,
)

__all__ = ["ContextConfig", "FinetuneConfig", "OptimiserConfig", "TargetConfig"]
