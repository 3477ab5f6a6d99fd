"""Masked context modelling with knowledge distillation (MCM-KD).

A small, pre-trained student encoder is fine-tuned on slides without labels. A context window
of s × s patches is cut from the tissue and a random part of its patches is masked. The student
f encodes the visible patches, a Transformer h with a predictor fills the masked places from
them, and a larger, frozen teacher t encodes the masked patches themselves. The loss is the l1
distance between the two over the set M of masked patches::

    L = 1 / |M| · Σ_{i in M} | h(f(x_visible))_i - t(x_i) |_1

Transformer and predictor are discarded afterwards; the student stands alone.

References
----------
Pisula and Bozek, "Masked context modelling with knowledge distillation",
arXiv 2403.05325 (2024).
"""

from napari_mcm.core.mcm.config import (
    ContextConfig,
    FinetuneConfig,
    OptimiserConfig,
    TargetConfig,
)

__all__ = ["ContextConfig", "FinetuneConfig", "OptimiserConfig", "TargetConfig"]
