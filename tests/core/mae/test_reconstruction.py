"""Reconstructions: on the right scale, hidden and visible patches told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from napari_mcm.core.errors import RunError, SlideError, TrainingError
from napari_mcm.core.grid import common_mpp
from napari_mcm.core.mae import AugmentConfig
from napari_mcm.core.mae.augment import resized
from napari_mcm.core.mae.config import ReconstructConfig
from napari_mcm.core.mae.images import read_around
from napari_mcm.core.mae.pretraining import build_model, pretrain
from napari_mcm.core.mae.reconstruction import (
    load_autoencoder,
    reconstruct,
    reconstruct_pictures,
)
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.runtime.jobs import Metrics, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.training import Run
from tests.core.mae.conftest import CPU, smooth_picture


class Oracle(torch.nn.Module):
    """Predicts exactly what the loss asks for, as a perfectly trained model would."""

    def __init__(self, model):
        super().__init__()
        self.inner = model
        self.config, self.patch, self.patches = model.config, model.patch, model.patches
        self.errors = model.errors

    def forward(self, images, order, mask_ratio=None):
        _, mask = self.inner(images, order, mask_ratio)
        return self.inner.targets(images), mask


@pytest.fixture
def model(config):
    return build_model(config)[0]


@pytest.mark.parametrize("norm", [True, False])
def test_perfect_predictions_give_the_very_image(config, norm):
    masking = config.masking.model_copy(update={"norm_targets": norm})
    model, _ = build_model(config.model_copy(update={"masking": masking}))
    image = smooth_picture(np.random.default_rng(0), 32)
    (one,) = reconstruct(Oracle(model), [image], AugmentConfig(), 0.75, paste=False)
    assert np.abs(one.filled.astype(int) - image).max() <= 1
    assert one.error_hidden < 1e-8 and one.pixel_error_hidden < 0.6
    assert one.pixel_error_blur > 2


def test_visible_pixels_are_pasted_or_the_models_own(model):
    image = smooth_picture(np.random.default_rng(0), 32)
    pasted, own = (
        reconstruct(model, [image], AugmentConfig(), 0.75, paste=paste)[0]
        for paste in (True, False)
    )
    hidden = np.kron(pasted.hidden, np.ones((8, 8), bool))
    assert pasted.hidden.sum() == 12
    assert (pasted.filled[~hidden] == image[~hidden]).all()
    assert (pasted.masked[~hidden] == image[~hidden]).all()
    assert (pasted.masked[hidden] == 128).all()
    assert (own.filled[~hidden] != image[~hidden]).any()
    assert (own.filled[hidden] == pasted.filled[hidden]).all()
    # What is shown does not change what is measured.
    assert own.error_visible == pasted.error_visible > 0


def test_what_is_hidden_at_a_low_ratio_is_hidden_at_a_high_one(model):
    image = smooth_picture(np.random.default_rng(0), 32)
    low, high = (
        reconstruct(model, [image], AugmentConfig(), ratio)[0].hidden
        for ratio in (0.25, 0.75)
    )
    assert (low <= high).all() and low.sum() == 4


def test_a_run_is_measured_and_drawn_by_mask_ratio(config, pictures, tmp_path):
    run(pretrain(config))
    (pictures / "text.png").write_text("no picture")
    figure = tmp_path / "figure.png"
    done = run(
        reconstruct_pictures(
            ReconstructConfig(
                paths=(config.out, pictures),
                mask_ratio=(0.25, 0.75),
                shown=2,
                out=figure,
                compute=CPU,
            )
        )
    )
    assert (done.images, done.skipped) == (12, 1)
    assert set(done.errors) == {0.25, 0.75}
    for errors in done.errors.values():
        assert errors["error_hidden"] != errors["error_visible"]
    with Image.open(figure) as picture:
        assert picture.width > picture.height > 100


def test_pictures_are_cut_as_the_pre_training_did(config, pictures):
    tiles = config.images.model_copy(update={"tiles": 2})
    run(pretrain(config.model_copy(update={"images": tiles})))
    asked = ReconstructConfig(paths=(config.out, pictures), compute=CPU)
    assert run(reconstruct_pictures(asked)).images == 12 * 4
    whole = asked.model_copy(update={"tiles": 1})
    assert run(reconstruct_pictures(whole)).images == 12
    few = asked.model_copy(update={"limit": 13})
    assert run(reconstruct_pictures(few)).images == 13


def test_an_unfinished_run_is_looked_at_by_its_checkpoint(config):
    job = pretrain(config)
    next(e for e in job if isinstance(e, Metrics) and e.step == 3)
    job.close()
    model, _ = load_autoencoder(config.out, CPU)
    state = Run.open(config.out).load_checkpoint()[0]
    name = "decoder.mask_token"
    assert torch.equal(model.state_dict()[name], state[f"model/{name}"])


def test_looking_leaves_the_random_generator_alone(config):
    run(pretrain(config))
    before = torch.get_rng_state()
    load_autoencoder(config.out, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_runs_without_weights_or_of_another_kind_are_refused(config, tmp_path):
    Run.create(config.out, config.model_dump(mode="json"))
    with pytest.raises(RunError, match="no weights"):
        load_autoencoder(config.out)
    Run.create(tmp_path / "other", FinetuneConfig().model_dump(mode="json"))
    with pytest.raises(RunError, match="mae pretrain"):
        load_autoencoder(tmp_path / "other")


def test_places_of_a_slide_are_filled_in(config, tissue_slide):
    run(pretrain(config))
    asked = ReconstructConfig(
        paths=(config.out, tissue_slide), at=((300, 400), (900, 700)), compute=CPU
    )
    found = run(reconstruct_pictures(asked))
    assert (found.images, found.skipped) == (2, 0)
    # The patch has the place in its middle, at the resolution that was learned from.
    with open_slide(tissue_slide) as slide:
        mpp, side = common_mpp([slide], config.grid), config.grid.patch_size
        around = read_around(slide, (300, 400), config.grid)
        wide = side * mpp / slide.mpp[0]
        assert around.extent[0] == pytest.approx(wide)
        corner = (300 - wide / 2, 400 - wide / 2)
        assert (around.pixels == slide.read(corner, (side, side), mpp)).all()
    model, trained = load_autoencoder(config.out, CPU)
    image = resized(around.pixels, trained.model.image_size)
    (one,) = reconstruct(model, [image], trained.augment, 0.75)
    first = run(reconstruct_pictures(asked.model_copy(update={"at": ((300, 400),)})))
    assert first.errors[0.75]["error_hidden"] == pytest.approx(one.error_hidden)


def test_a_place_of_what_is_no_slide_is_said(config, tmp_path):
    run(pretrain(config))
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0")
    asked = ReconstructConfig(paths=(config.out, broken), at=((1, 1),), compute=CPU)
    with pytest.raises(SlideError, match="broken.tif"):
        run(reconstruct_pictures(asked))


def test_no_readable_picture_is_said(config, tmp_path):
    run(pretrain(config))
    (tmp_path / "text.png").write_text("no picture")
    asked = ReconstructConfig(paths=(config.out, tmp_path / "text.png"))
    with pytest.raises(TrainingError, match="no readable picture"):
        run(reconstruct_pictures(asked))
