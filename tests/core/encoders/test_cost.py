"""Parameters and multiply-adds are those of published counts and of sums by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from napari_mcm.core.encoders import load_encoder, save_encoder
from napari_mcm.core.encoders.cost import (
    Cost,
    count_multiply_adds,
    measure_cost,
    multiply_adds,
    parameters,
    recipe_cost,
    stated_cost,
)
from napari_mcm.core.encoders.export import export_encoder


@pytest.mark.parametrize(
    ("name", "side", "millions", "billions"),
    [
        # fvcore's counts; it also counts norms, and not a ViT's attention (below)
        ("resnet18", 224, 11.18, 1.82),
        ("resnet18", 256, 11.18, 2.38),
        ("resnet50", 224, 23.51, 4.11),
        ("tf_efficientnetv2_l", 224, 117.23, 12.30),
        # the published figures of EfficientNet-Lite, less its classifier of 1.28 M
        ("tf_efficientnet_lite0", 224, 4.652 - 1.281, 0.407 - 0.0013),
        ("tf_efficientnet_lite2", 260, 6.092 - 1.281, 0.859 - 0.0013),
    ],
)
def test_counts_agree_with_published_ones(name, side, millions, billions):
    with torch.device("meta"):
        module = timm.create_model(name, num_classes=0)
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.006)
    assert count_multiply_adds(module, side) / 1e9 == pytest.approx(billions, rel=0.08)


def test_attention_counts():
    with torch.device("meta"):
        module = timm.create_model("vit_small_patch16_224", num_classes=0)
    # by hand: 196 patches and a class token, 384 wide, 12 blocks
    tokens, width, pixels = 197, 384, 3 * 16 * 16
    embedding = 196 * pixels * width
    linear = tokens * width * (3 * width + width + 4 * width + 4 * width)
    attention = 2 * tokens * tokens * width
    assert count_multiply_adds(module, 224) == embedding + 12 * (linear + attention)


def test_a_convolution_by_hand():
    module = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten())
    module.append(nn.Linear(8 * 16 * 16, 5))
    expected = 16 * 16 * 8 * 3 * 9 + 8 * 16 * 16 * 5
    assert count_multiply_adds(module, 32) == expected


def test_a_model_that_looks_at_its_numbers():
    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, images):
            return self.layer(images) if images.max().item() < 1 else images

    assert count_multiply_adds(Looking(), 8) == 8 * 8 * 3 * 4


def test_the_side_is_that_of_the_input():
    free = load_encoder("random:test_efficientnet")
    assert measure_cost(free).side == 224
    assert measure_cost(free, 64).side == 64
    assert multiply_adds(free, 128) == pytest.approx(
        4 * multiply_adds(free, 64), rel=0.02
    )
    assert parameters(free) == sum(p.numel() for p in free.module.parameters())
    resized = replace(free, input_size=96)
    assert measure_cost(resized, 64) == measure_cost(free, 96)
    vit = load_encoder("random:test_vit")
    assert measure_cost(vit, 224).side == vit.input_size


def test_counting_leaves_the_encoder_alone():
    encoder = load_encoder("random:test_efficientnet")
    before = {
        name: (t.data_ptr(), t._version)
        for name, t in encoder.module.state_dict().items()
    }
    measure_cost(encoder)
    after = {
        name: (t.data_ptr(), t._version)
        for name, t in encoder.module.state_dict().items()
    }
    assert before == after
    assert {p.device.type for p in encoder.module.parameters()} == {"cpu"}


def test_recipes_and_cards_state_the_cost(tmp_path):
    encoder = load_encoder("random:test_efficientnet")
    cost = measure_cost(encoder, 64)
    recipe = encoder.recipe | {"fine_tuning": {"patch_size": 64}}
    folder = save_encoder(tmp_path / "saved", encoder.module, recipe, "card")
    stored = json.loads((folder / "recipe.json").read_text())
    assert stated_cost(stored) == cost
    again = load_encoder(folder)
    assert stated_cost(again.describe()) == cost
    # what is stated has no part in who the encoder is
    assert again.fingerprint == encoder.fingerprint
    hub = export_encoder(encoder, "hf-hub", tmp_path / "hub", 64).path
    assert cost.describe() in (hub / "README.md").read_text()
    assert stated_cost(json.loads((hub / "recipe.json").read_text())) == cost


def test_a_recipe_alone_is_enough():
    encoder = load_encoder("random:test_efficientnet")
    about = encoder.describe()
    assert stated_cost(about) is None
    assert recipe_cost(about, 64) == measure_cost(encoder, 64)
    # another side than the one stated is counted anew
    assert recipe_cost(about | Cost(1, 2, 64).record(), 64) == Cost(1, 2, 64)
    assert recipe_cost(about | Cost(1, 2, 64).record(), 96) == measure_cost(encoder, 96)


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"spec": "from another tool", "dim": 768},
        {
            "architecture": "no_such_model",
            "preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1]},
        },
        {"architecture": 3, "preprocessing": 4, "cost": {"parameters": "many"}},
        {"cost": {"parameters": -1, "multiply_adds": 1, "side": 1}},
    ],
)
def test_an_unknown_encoder_has_no_cost(recipe):
    assert stated_cost(recipe) is None
    assert recipe_cost(recipe, 64) is None


def test_a_recipe_cannot_make_timm_read_files(tmp_path, monkeypatch):
    encoder = load_encoder("random:test_efficientnet")
    bad = encoder.describe() | {
        "model_args": {"checkpoint_path": str(tmp_path / "x.pt")}
    }
    monkeypatch.setattr(
        timm, "create_model", lambda *_, **__: pytest.fail("reached timm")
    )
    assert recipe_cost(bad, 64) is None


def test_words():
    assert Cost(3_371_008, 383_907_552, 224).describe() == (
        "3.4 M parameters, 0.38 G multiply-adds per patch of 224 px"
    )
    assert Cost(117_234_272, 12_229_908_544, 224).describe().startswith("117 M")
