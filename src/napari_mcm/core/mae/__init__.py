"""Masked autoencoders (MAE), pre-trained on unlabelled images.

An image is divided into N patches, of which a random part is hidden. A Vision
Transformer encodes the visible patches only; a light decoder predicts the pixels of all
of them from those tokens and a learned mask token. Each target patch is scaled to zero
mean and unit variance, and the loss is the mean squared error over the set H of hidden
patches::

    L = 1 / |H| · Σ_{i in H} mean( (ŷ_i - (x_i - μ_i) / σ_i)² )

The decoder is not part of the exported encoder, which is meant to initialise fine-tuning.

References
----------
He et al., "Masked autoencoders are scalable vision learners", CVPR 2022. Written from the
article's description.
"""

from napari_mcm.core.mae.config import (
    AugmentConfig,
    ImagesConfig,
    MaskingConfig,
    ModelConfig,
    PretrainConfig,
    RecipeConfig,
)

__all__ = [
    "AugmentConfig",
    "ImagesConfig",
    "MaskingConfig",
    "ModelConfig",
    "PretrainConfig",
    "RecipeConfig",
]
