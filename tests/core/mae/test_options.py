"""Presets, augmentation, order of images: what is keyed, what is as published."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.mae import AugmentConfig, PretrainConfig
from napari_mcm.core.mae.augment import augment, random_box
from napari_mcm.core.training.images import draws, steps_of_epochs
from napari_mcm.core.training.schedule import rate_factor


def test_the_default_is_the_reference_recipe():
    config = PretrainConfig()
    recipe = config.recipe
    assert (config.masking.mask_ratio, recipe.base_lr) == (0.75, 1.5e-4)
    assert (recipe.beta1, recipe.beta2, recipe.weight_decay) == (0.9, 0.95, 0.05)
    assert (recipe.epochs, recipe.warmup, recipe.schedule) == (800, 0.05, "cosine")
    assert config.masking.norm_targets and config.augment.crop_scale == 0.2
    assert config == PretrainConfig(preset="reference")


@pytest.mark.parametrize(
    ("preset", "mask", "peak", "schedule", "decay", "batch"),
    [
        ("experiment1", 0.5, 1.125e-3, "cosine", 0.05, 1920),
        ("experiment2", 0.75, 1.25e-4, "cosine", 0.01, 640),
        ("experiment3", 0.25, 2.0e-4, "linear", 0.01, 640),
    ],
)
def test_experiments_are_those_of_the_source(
    preset, mask, peak, schedule, decay, batch
):
    config = PretrainConfig(preset=preset)
    recipe = config.recipe
    assert config.masking.mask_ratio == mask
    assert recipe.peak_lr == pytest.approx(peak)
    assert (recipe.schedule, recipe.weight_decay) == (schedule, decay)
    assert (recipe.batch_size, recipe.beta2, recipe.warmup) == (batch, 0.999, 0.05)
    assert config.images.tiles == 4 and config.augment.normalisation == "none"


def test_what_is_given_wins_over_the_preset_and_survives_json():
    given = {
        "preset": "experiment3",
        "recipe": {"batch_size": 8},
        "model": {"model": "tiny"},
    }
    config = PretrainConfig.model_validate(given)
    assert config.recipe.batch_size == 8 and config.recipe.schedule == "linear"
    assert config.model.model == "tiny" and config.masking.mask_ratio == 0.25
    assert PretrainConfig.model_validate_json(config.model_dump_json()) == config


def test_images_that_are_no_whole_number_of_patches_are_refused():
    with pytest.raises(ValueError, match="not a multiple"):
        PretrainConfig.model_validate({"model": {"image_size": 100, "vit_patch": 16}})


def test_every_image_comes_once_an_epoch_and_a_resume_sees_the_same():
    all_steps = list(draws(10, 4, 3, 0, 5))
    flat = [draw for step in all_steps for draw in step]
    for epoch in (0, 1):
        assert sorted(i for e, i in flat if e == epoch) == list(range(10))
    assert list(draws(10, 4, 3, 3, 5)) == all_steps[3:]
    assert [i for e, i in flat if e == 0] != [i for e, i in flat if e == 1]
    assert steps_of_epochs(10, 4, 2) == 5
    # A batch larger than an epoch.
    (batch,) = draws(3, 7, 0, 0, 1)
    assert len(batch) == 7 and {e for e, _ in batch} == {0, 1, 2}


def test_random_crops_keep_at_least_the_asked_part_and_stay_inside():
    shares, aspects = [], []
    for seed in range(300):
        box = random_box(120, 90, 0.2, np.random.default_rng(seed))
        if box is None:
            continue
        left, top, right, bottom = box
        assert 0 <= left < right <= 120 and 0 <= top < bottom <= 90
        shares.append((right - left) * (bottom - top) / (120 * 90))
        aspects.append((right - left) / (bottom - top))
    assert min(shares) > 0.19 and max(shares) > 0.8 and np.mean(shares) < 0.7
    assert min(aspects) > 0.7 and max(aspects) < 1.4


def test_augmentation_is_keyed_and_flips_both_ways():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3), np.uint8)
    plain = AugmentConfig(crop_scale=1)
    seen = set()
    for seed in range(40):
        one, two = (
            augment(image, 32, plain, np.random.default_rng(seed)) for _ in range(2)
        )
        assert (one == two).all()
        seen.add(one.tobytes())
    turned = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    assert seen == {np.ascontiguousarray(t).tobytes() for t in turned}


def test_colours_change_only_where_asked():
    image = np.full((16, 16, 3), (200, 120, 160), np.uint8)
    still = AugmentConfig(crop_scale=0.5)
    vivid = still.model_copy(update={"colour_jitter": 0.4})
    assert (augment(image, 16, still, np.random.default_rng(1)) == image).all()
    changed = augment(image, 16, vivid, np.random.default_rng(1))
    assert (changed != image).any() and changed.dtype == np.uint8


def test_the_linear_schedule_rises_and_falls_to_nothing():
    factors = [rate_factor("linear", step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1
    falls = np.diff(factors[10:])
    assert np.allclose(falls, falls[0]) and 0 < factors[-1] < 0.01
