"""The method: what is hidden, what is seen, what the loss is, how large it all is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mae import MaskingConfig, ModelConfig
from napari_mcm.core.mae.model import MaskedAutoencoder, make_vit
from napari_mcm.core.mae.patches import kept_count, patchify, unpatchify
from tests.core.mae.conftest import LIGHT, SMALL


def make(masking: MaskingConfig = LIGHT, model: ModelConfig = SMALL):
    torch.manual_seed(0)
    return MaskedAutoencoder(make_vit(model), model.model, masking)


def batch(count: int = 3, side: int = 32, seed: int = 0):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(size=(count, 3, side, side))).float()
    patches = (side // 8) ** 2
    order = np.stack([rng.permutation(patches) for _ in range(count)])
    return images, torch.from_numpy(order)


def trainable(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_sizes_are_the_published_ones():
    base = ModelConfig(model="base")
    with torch.device("meta"):
        model = MaskedAutoencoder(make_vit(base), "base", MaskingConfig())
    # facebookresearch/mae counts what learns; its positions are fixed.
    assert trainable(model.encoder) == 85_647_360
    assert trainable(model.decoder) == 26_008_320
    encoder = sum(p.numel() for p in model.encoder.parameters())
    assert encoder == 85_798_656


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads"),
    [("tiny", 192, 12, 3), ("small", 384, 12, 6), ("large", 1024, 24, 16)],
)
def test_other_sizes_by_name(name, width, depth, heads):
    with torch.device("meta"):
        vit = make_vit(ModelConfig(model=name, image_size=112, vit_patch=8))
    assert (vit.embed_dim, len(vit.blocks)) == (width, depth)
    assert vit.blocks[0].attn.num_heads == heads
    assert vit.patch_embed.num_patches == 14 * 14
    assert vit.norm.eps == 1e-6


def test_positions_are_never_zero_and_all_differ():
    model = make()
    for positions in (model.encoder.pos_embed, model.decoder.positions):
        of_patches = positions[0, 1:].detach()
        assert of_patches.norm(dim=1).min() > 1
        apart = torch.cdist(of_patches, of_patches)
        assert apart[~torch.eye(len(apart), dtype=bool)].min() > 0.1
    assert not model.encoder.pos_embed.requires_grad


def test_hidden_patches_are_told_apart():
    images, order = batch()
    predictions, mask = make()(images, order)
    for image, hidden in zip(predictions, mask, strict=True):
        assert image[hidden > 0].std(dim=0).mean() > 1e-3


def test_the_encoder_sees_visible_patches_only():
    model, (images, order) = make(), batch()
    before, mask = model(images, order)
    hidden = mask.reshape(3, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2)
    other = torch.where(hidden[:, None] > 0, torch.randn_like(images), images)
    after, _ = model(other, order)
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    lengths = []
    model.encoder.blocks[0].register_forward_hook(
        lambda _, args, __: lengths.append(args[0].shape[1])
    )
    model(images, order)
    assert lengths == [1 + 4]


def test_with_every_patch_visible_the_encoder_is_timms():
    model, (images, _) = make().eval(), batch()
    every = torch.arange(16).expand(3, -1)
    with torch.inference_mode():
        ours, theirs = (
            model.encode(images, every),
            model.encoder.forward_features(images),
        )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [True, False])
def test_the_loss_is_the_articles_formula(norm):
    masking = LIGHT.model_copy(update={"norm_targets": norm})
    model, (images, order) = make(masking), batch()
    predictions, mask = model(images, order)
    total, count = 0.0, 0
    for b in range(len(images)):
        for place in order[b, kept_count(16, 0.75) :].tolist():
            y, x = divmod(place, 4)
            block = images[b, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
            values = block.permute(1, 2, 0).reshape(-1).double().numpy()
            if norm:
                variance = values.var(ddof=1)
                values = (values - values.mean()) / (variance + 1e-6) ** 0.5
            predicted = predictions[b, place].detach().double().numpy()
            total += float(((predicted - values) ** 2).mean())
            count += 1
    found = float(model.loss(images, predictions, mask).detach())
    assert found == pytest.approx(total / count, rel=1e-5)
    assert count == 3 * 12


def test_the_loss_does_not_depend_on_visible_targets():
    model, (images, order) = make(), batch()
    predictions, mask = model(images, order)
    hidden = mask.reshape(3, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = torch.where(hidden > 0, images, torch.randn_like(images))
    one, two = (model.loss(x, predictions, mask) for x in (images, other))
    assert torch.equal(one, two)
    assert not torch.equal(
        model.errors(images, predictions), model.errors(other, predictions)
    )


def test_what_was_shuffled_comes_back_to_its_place():
    """Visible tokens reach the decoder at their own places, mask tokens at the others."""
    model, (_, order) = make(), batch()
    kept = 4
    decoder = model.decoder
    marked = torch.zeros(3, 1 + kept, 192)
    for b in range(3):
        for k in range(kept):
            marked[b, 1 + k, 0] = 100.0 + float(order[b, k])
    decoder.embed = torch.nn.Linear(192, 32, bias=False)
    torch.nn.init.eye_(decoder.embed.weight)
    torch.nn.init.constant_(decoder.mask_token, -7.0)
    seen = []
    decoder.blocks.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    decoder(marked, order)
    tokens = (seen[0] - decoder.positions)[:, 1:, 0].detach()
    for b in range(3):
        visible = set(order[b, :kept].tolist())
        for place in range(16):
            wanted = 100.0 + place if place in visible else -7.0
            assert float(tokens[b, place]) == pytest.approx(wanted, abs=1e-4)


def test_patches_are_put_together_again():
    images, _ = batch()
    assert torch.equal(unpatchify(patchify(images, 8), 8), images)
    first = patchify(images, 8)[0, 5]  # row 1, column 1
    block = images[0, :, 8:16, 8:16].permute(1, 2, 0).reshape(-1)
    assert torch.equal(first, block)


def test_one_batch_can_be_learned_by_heart():
    model, (_, order) = make(), batch(2)
    rng = np.random.default_rng(0)
    ramp = np.linspace(-1, 1, 32)
    images = np.stack(
        [
            ramp[None, :, None] * a + ramp[:, None, None] * b
            for a, b in rng.normal(size=(2, 2, 3))
        ]
    )
    images = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(150):
        predictions, mask = model(images, order)
        loss = model.loss(images, predictions, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.8
    assert losses[-1] < 0.05


def test_one_patch_stays_and_one_is_hidden():
    assert kept_count(196, 0.75) == 49
    assert kept_count(4, 0.99) == 1
    assert kept_count(4, 0.01) == 3


def test_a_decoder_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="decoder-heads"):
        make(MaskingConfig(decoder_width=36, decoder_heads=5))
