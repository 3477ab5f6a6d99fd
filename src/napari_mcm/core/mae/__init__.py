"""Masked autoencoders on unlabelled images, and classifiers that start from them.

He et al., "Masked autoencoders are scalable vision learners", CVPR 2022. Written from
the article's description.
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
