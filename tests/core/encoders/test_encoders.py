"""Encoders load from everything a user may name, and encode the same everywhere."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from napari_mcm.core.encoders import ComputeConfig, load_encoder, save_encoder
from napari_mcm.core.encoders.encoder import fold_batch_norms
from napari_mcm.core.errors import ConfigError, WeightsError

TINY = "random:test_efficientnet"


def patches(count: int, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (count, side, side, 3), np.uint8)


def cosine(a, b):
    product = (a * b).sum(1)
    return product / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_offline_weights_know_a_cat_from_coffee():
    from skimage import data, transform

    from napari_mcm.core.encoders.sources import read_offline

    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(read_offline("efficientnet_lite0"))
    for image, classes in ((data.cat(), range(281, 286)), (data.coffee(), [967])):
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = transform.resize(image[top:, left:][:side, :side], (224, 224))
        x = torch.from_numpy((square - 0.5) / 0.5).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            assert int(model(x).argmax()) in classes


@pytest.mark.parametrize("number", [0, 1, 2])
def test_offline_encoders_have_their_own_preprocessing(number):
    encoder = load_encoder(f"offline:efficientnet_lite{number}")
    assert (encoder.dim, encoder.mean, encoder.std) == (1280, (0.5,) * 3, (0.5,) * 3)
    assert encoder.input_size is None
    assert np.isfinite(encoder.encode(patches(2))).all()


def test_normalisation_is_the_weights_own():
    encoder = load_encoder("random:resnet18")
    black, white = (
        np.zeros((1, 8, 8, 3), np.uint8),
        np.full((1, 8, 8, 3), 255, np.uint8),
    )
    low = encoder.normalise(torch.from_numpy(black))[0, :, 0, 0]
    high = encoder.normalise(torch.from_numpy(white))[0, :, 0, 0]
    assert low.tolist() == pytest.approx([-2.1179, -2.0357, -1.8044], abs=1e-3)
    assert high.tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)


def test_patches_of_any_size_go_in_as_they_are_but_a_vit_s_are_resized():
    cnn, vit = load_encoder(TINY), load_encoder("random:test_vit")
    pixels = torch.from_numpy(patches(1, 96))
    assert cnn.normalise(pixels).shape[-2:] == (96, 96)
    assert vit.normalise(pixels).shape[-2:] == (160, 160)
    assert vit.encode(patches(2, 96)).shape == (2, vit.dim)


@pytest.mark.parametrize("spec", [TINY, "random:test_resnet", "random:test_vit"])
def test_features_do_not_depend_on_the_batch(spec):
    encoder, pixels = load_encoder(spec), patches(21)
    whole = encoder.encode(pixels)
    parts = [encoder.encode(p) for p in (pixels[:1], pixels[1:18], pixels[18:])]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert encoder.encode(pixels[:0]).shape == (0, encoder.dim)


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "resnet18", "tf_efficientnet_lite0"]
)
def test_folding_removes_batch_norms_and_changes_nothing(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
    x = torch.randn(2, 3, 64, 64)
    folded = fold_batch_norms(model, x)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    with torch.inference_mode():
        expected, got = model.eval()(x), folded(x)
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()


def test_encode_follows_the_module_s_weights():
    encoder = load_encoder(TINY)
    before = encoder.encode(patches(2))
    with torch.no_grad():
        for parameter in encoder.module.parameters():
            parameter.mul_(0.5)
    assert np.abs(encoder.encode(patches(2)) - before).max() > 1e-3


def test_bfloat16_agrees_with_float32():
    slow = load_encoder(
        "offline:efficientnet_lite0", ComputeConfig(precision="float32")
    )
    fast = load_encoder(
        "offline:efficientnet_lite0", ComputeConfig(precision="bfloat16")
    )
    assert fast.precision == "bfloat16"
    assert cosine(slow.encode(patches(4)), fast.encode(patches(4))).min() > 0.999


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"_is_amx_tile_supported"}, True),
        ({"_is_avx512_bf16_supported"}, True),
        (set(), False),
    ],
)
def test_fast_bfloat16_is_a_matter_of_instructions(monkeypatch, has, expected):
    from napari_mcm.core.encoders.compute import has_fast_bfloat16

    for flag in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, flag, lambda flag=flag: flag in has)
    assert has_fast_bfloat16(torch.device("cpu")) is expected


def test_a_device_that_is_not_there_is_said_in_one_line():
    with pytest.raises(ConfigError, match="--device cpu"):
        load_encoder(TINY, ComputeConfig(device="cuda:63"))


@pytest.fixture
def saved(tmp_path):
    encoder = load_encoder("random:test_resnet")
    return save_encoder(
        tmp_path / "run/encoder", encoder.module, encoder.recipe, "card"
    )


@pytest.mark.parametrize("part", ["..", ".", "model.safetensors"])
def test_a_saved_encoder_loads_from_run_folder_and_file(saved, part):
    first = load_encoder("random:test_resnet")
    again = load_encoder(saved / part)
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.encode(patches(2)), first.encode(patches(2)))


def test_a_saved_encoder_loads_with_timm_alone(saved):
    recipe = json.loads((saved / "recipe.json").read_text())
    model = timm.create_model(recipe["architecture"], num_classes=0)
    model.load_state_dict(load_file(saved / "model.safetensors"), strict=True)


def test_fingerprints_tell_weights_and_preprocessing_apart(saved, tmp_path):
    one = load_encoder(saved)
    preprocessing = {**one.recipe["preprocessing"], "mean": [0.1, 0.2, 0.3]}
    recipe = {**one.recipe, "preprocessing": preprocessing}
    other = load_encoder(save_encoder(tmp_path / "b", one.module, recipe, ""))
    with torch.no_grad():
        next(one.module.parameters())[0] += 1e-3
    third = load_encoder(save_encoder(tmp_path / "c", one.module, one.recipe, ""))
    assert len({one.fingerprint, other.fingerprint, third.fingerprint}) == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_model", "neither a timm model"),
        ("offline:efficientnet_b9", "There are offline:efficientnet_lite0"),
        ("random:no_such_model", "timm knows no such model"),
        ("runs/nowhere", "no such file"),
        ("weights.safetensors", "no such file"),
    ],
)
def test_unknown_encoders_are_refused_in_one_line(spec, message):
    with pytest.raises(WeightsError, match=message) as error:
        load_encoder(spec)
    assert "\n" not in str(error.value)


def test_pickles_are_not_read(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({}, path)
    with pytest.raises(WeightsError, match="can carry code"):
        load_encoder(path)


def test_damaged_and_foreign_weights_are_refused(saved):
    recipe = json.loads((saved / "recipe.json").read_text())
    recipe["architecture"] = "test_efficientnet"
    (saved / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(WeightsError, match="does not fit"):
        load_encoder(saved)
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="is damaged"):
        load_encoder(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "x; y"}, "architecture"),
        ({"architecture": "no_such_model"}, "unknown to timm"),
        ({"preprocessing": {"mean": [0, 0, 0]}}, "std"),
        ({"preprocessing": {"mean": [0, 0, 0], "std": [1, 0, 1]}}, "positive"),
        ({"preprocessing": {"mean": [0, 0, "NaN"], "std": [1, 1, 1]}}, "mean"),
        (
            {"preprocessing": {"mean": [0] * 3, "std": [1] * 3, "input_size": 10**6}},
            "input_size",
        ),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "checkpoint_path"),
        ({"model_args": {"no_such_argument": 1}}, "cannot be built"),
    ],
)
def test_recipes_are_checked(saved, change, message):
    file = saved / "recipe.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(WeightsError, match=message) as error:
        load_encoder(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{}", "not json", "[" * 100_000, "\xff"])
def test_recipes_that_are_none_are_refused(saved, text):
    (saved / "recipe.json").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match="not a valid recipe") as error:
        load_encoder(saved)
    assert "\n" not in str(error.value)


def test_weights_without_a_recipe_say_what_is_missing(saved):
    (saved / "recipe.json").unlink()
    with pytest.raises(WeightsError, match="recipe.json"):
        load_encoder(saved / "model.safetensors")


def test_a_run_that_is_not_finished_says_how_to_finish_it(tmp_path):
    options = {"student": "a", "teacher": "b", "context": {}}
    (tmp_path / "config.json").write_text(json.dumps(options))
    with pytest.raises(WeightsError, match="finetune --resume"):
        load_encoder(tmp_path)


def test_further_entries_of_a_recipe_survive(saved, tmp_path):
    one = load_encoder(saved)
    recipe = {**one.recipe, "fine_tuning": {"teacher": "x", "summary": {"loss": 0.5}}}
    again = load_encoder(save_encoder(tmp_path / "b", one.module, recipe, ""))
    assert again.recipe["fine_tuning"] == recipe["fine_tuning"]
    assert again.fingerprint == one.fingerprint
    assert json.loads(json.dumps(again.describe())) == again.describe()


def test_random_weights_follow_their_seed_and_leave_others_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    prints = [load_encoder(TINY, random_weights_seed=n).fingerprint for n in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    assert torch.equal(torch.rand(1), expected)


def test_features_that_are_not_finite_are_an_error():
    encoder = load_encoder(TINY)
    with torch.no_grad():
        next(encoder.module.parameters()).fill_(float("inf"))
    with pytest.raises(WeightsError, match="not finite"):
        encoder.encode(patches(1))


def test_a_missing_package_of_weights_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("napari_mcm.core.encoders.sources.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install"):
        load_encoder("offline:efficientnet_lite1")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No name resolves and nothing is cached, whatever this computer has."""
    import socket

    from huggingface_hub import constants

    asked = []

    def unreachable(*args, **kwargs):
        asked.append(args)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return asked


def with_status(error: OSError, status: int) -> OSError:
    error.response = SimpleNamespace(status_code=status)
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/cache/x"),
            r"/cache/x: weights cannot be stored or read \(Permission denied\)",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "free space on the disk"),
        (
            with_status(OSError("busy"), 503),
            r"resnet10t: the hub answers with an error \(HTTP 503\)\. Try again later",
        ),
    ],
)
def test_a_download_that_fails_is_not_always_the_network(monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(WeightsError, match=message) as raised:
        load_encoder("resnet10t")
    assert "cannot be fetched" not in str(raised.value)


def test_weights_that_cannot_be_read_are_not_called_damaged(saved, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("napari_mcm.core.encoders.load.load_file", refuse)
    with pytest.raises(WeightsError, match=r"cannot be read \(Permission denied\)"):
        load_encoder(saved)


@pytest.mark.parametrize("spec", ["resnet10t", "hf-hub:someone/some-model"])
def test_without_a_network_the_offline_means_are_named(no_network, spec):
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with pytest.raises(WeightsError, match="offline:efficientnet_lite0") as error:
        load_encoder(spec)
    assert "\n" not in str(error.value)
    # The hub's own library would ask again and again for a minute.
    assert len(no_network) <= 1
    assert constants.HF_HUB_OFFLINE is before


def test_the_hub_is_not_asked_when_it_must_not(no_network, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = "napari_mcm.core.encoders.sources.socket.create_connection"
    monkeypatch.setattr(asked, lambda *a, **k: pytest.fail("asked the network"))
    with pytest.raises(WeightsError, match="offline:efficientnet_lite0"):
        load_encoder("resnet10t")


class Shared(torch.nn.Module):
    """A convolution that is used twice, by two batch norms: it cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1)
        self.one, self.two = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
        self.own = torch.nn.Conv2d(3, 3, 1)
        self.last = torch.nn.BatchNorm2d(3)
        for norm in (self.one, self.two, self.last):
            torch.nn.init.uniform_(norm.running_mean, -0.5, 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.conv(self.one(self.conv(x))))
        return self.last(self.own(x))


class Twofold(Shared):
    """A convolution whose output is also used as it is, beside its batch norm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.own(x)
        return x + self.last(x)


@pytest.mark.parametrize(("kind", "left"), [(Shared, 2), (Twofold, 3)])
def test_what_cannot_be_folded_stays_as_it_is(kind, left):
    module, x = kind().eval(), torch.randn(2, 3, 8, 8)
    folded = fold_batch_norms(module, x)
    norms = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == left
    torch.testing.assert_close(folded(x), module(x))
    assert len(list(module.parameters())) == len(list(kind().parameters()))
