"""What the long jobs of the docks are going to do, for an estimate of their duration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.core.encoders.cost_guess import (
    VIT_SHAPES,
    guess_multiply_adds,
    vit_multiply_adds,
)
from napari_mcm.viewer.app.estimates import Areas, SlideArea, count_patches
from napari_mcm.viewer.app.rates import Work

if TYPE_CHECKING:
    from napari_mcm.core.features.config import ExtractConfig
    from napari_mcm.core.mae.config import PretrainConfig
    from napari_mcm.core.mcm.config import FinetuneConfig
    from napari_mcm.core.mil.config import MilConfig

_BACKWARDS = 3.0
"""What a training step costs, in passes forwards."""


_LIGHT, _LIGHT_SLOWNESS = "efficientnet", 2.0
"""Depthwise convolutions wait for memory: EfficientNet-Lite0 does up to 60 patches of 224 px
per second, 23e9 multiply-adds, on two cores that do 100e9 in products of matrices."""


def extraction_work(config: ExtractConfig, areas: Areas) -> Work:
    """Describe an extraction of features.

    Parameters
    ----------
    config : ExtractConfig
        Its options.
    areas : Areas
        Areas of the slides.

    Raises
    ------
    McmError
        If there are no slides.
    """
    found = areas.of(config.slides)
    side = config.grid.patch_size
    costs = [guess_multiply_adds(spec, side) for spec in config.encoder]
    known = [cost for cost in costs if cost is not None]
    return Work(
        verb="extract",
        model=f"{'+'.join(config.encoder)}, {side} px",
        device=config.compute.device,
        precision=config.compute.precision,
        stage="Extracting",
        units=count_patches(found, config.grid) or None,
        exact=_are_exact(found),
        multiply_adds=sum(known) if len(known) == len(costs) else None,
        slowness=_LIGHT_SLOWNESS if any(_LIGHT in e for e in config.encoder) else 1.0,
    )


def finetune_work(config: FinetuneConfig, areas: Areas) -> Work:
    """Describe a fine-tuning.

    Parameters
    ----------
    config : FinetuneConfig
        Its options.
    areas : Areas
        Areas of the slides.

    Raises
    ------
    McmError
        If there are no slides.
    """
    found, how, s = areas.of(config.slides), config.optimiser, config.context.s
    trained = 1.0 - config.held_out.validation
    windows = count_patches(found, config.grid) / s**2 * trained
    side = config.grid.patch_size
    student = guess_multiply_adds(config.student, side)
    teacher = guess_multiply_adds(config.teacher_spec, side)
    masked = config.context.context_mode in ("masked", "foreign")
    seen = 1.0 - config.context.mask_ratio if masked else 1.0
    cost = None
    if student is not None and teacher is not None:
        cost = s**2 * (seen * _BACKWARDS * student + teacher)
    return Work(
        verb="finetune",
        model=f"{config.student} < {config.teacher_spec}, {s} x {s} of {side} px, "
        f"{how.learn}",
        device=config.compute.device,
        precision=config.compute.precision,
        stage="Fine-tuning",
        units=windows * how.epochs * how.placements or None,
        exact=_are_exact(found),
        multiply_adds=cost,
    )


def pretraining_work(config: PretrainConfig, areas: Areas) -> Work:
    """Describe a pre-training of a masked autoencoder.

    Parameters
    ----------
    config : PretrainConfig
        Its options.
    areas : Areas
        Areas of the slides.

    Raises
    ------
    McmError
        If there are no pictures or slides.
    """
    from napari_mcm.core.mae.pictures import find_pictures

    images, exact = 0.0, True
    if config.pictures:
        images += len(find_pictures(config.pictures)) * config.images.tiles**2
    if config.images.slides:
        found = areas.of(config.images.slides)
        images += count_patches(found, config.grid)
        exact = _are_exact(found)
    recipe, model = config.recipe, config.model
    units = recipe.steps * recipe.batch_size if recipe.steps else None
    return Work(
        verb="mae pretrain",
        model=f"vit {model.model}, {model.image_size} px of {model.vit_patch}, "
        f"{model.depth or ''} {config.masking.mask_ratio:g}",
        device=config.compute.device,
        precision=config.compute.precision,
        stage="Pre-training",
        units=units or images * recipe.epochs or None,
        exact=exact or units is not None,
        multiply_adds=autoencoder_multiply_adds(config),
    )


def autoencoder_multiply_adds(config: PretrainConfig) -> float:
    """Return the multiply-adds of one image in a step of a pre-training.

    The encoder sees the visible patches only, the decoder all of them.

    Parameters
    ----------
    config : PretrainConfig
        Size of the ViT, its decoder and the mask ratio.
    """
    from napari_mcm.core.mae.config import DECODERS

    model, masking = config.model, config.masking
    width, depth = VIT_SHAPES[model.model]
    patches = model.grid**2
    seen = (1.0 - masking.mask_ratio) * patches + 1
    encoder = vit_multiply_adds(width, model.depth or depth, seen)
    wide, deep, _heads = DECODERS[model.model]
    wide, deep = masking.decoder_width or wide, masking.decoder_depth or deep
    pixels = 3 * model.vit_patch**2
    ends = pixels * (seen * width + patches * wide) + seen * width * wide
    decoder = vit_multiply_adds(wide, deep, patches + 1)
    return _BACKWARDS * (encoder + decoder + ends)


def mil_work(config: MilConfig, _areas: Areas) -> Work:
    """Describe the training of slide classifiers.

    Parameters
    ----------
    config : MilConfig
        Its options.

    Raises
    ------
    ConfigError
        If the table of slides cannot be read.
    ValueError
        If none is chosen.
    """
    from napari_mcm.core.mil.cohort import read_cohort

    if config.cohort is None:
        raise ValueError("no table of slides is chosen")
    cases = read_cohort(config.cohort).cases
    given = len({case.fold for case in cases if case.fold})
    folds = 1 if any(case.split for case in cases) else given or config.split.folds
    epochs = folds * config.seeds * config.training.epochs
    return Work(
        verb="mil train",
        model=f"{config.aggregator.model}, up to {config.training.max_patches} patches",
        device=config.compute.device,
        precision=config.compute.precision,
        stage="Fold",
        units=float(epochs * len(cases)),
        scale=float(len(cases)),
        # Training stops early: earlier runs show how often.
        exact=False,
    )


def _are_exact(areas: list[SlideArea]) -> bool:
    return bool(areas) and all(area.exact for area in areas)
