"""Exported encoders compute what the encoder computes, in other tools' own loaders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch

from napari_mcm.core.encoders import load_encoder, save_encoder
from napari_mcm.core.encoders.export import export_encoder
from napari_mcm.core.errors import WeightsError

MODELS = ["random:test_efficientnet", "random:test_vit"]


@pytest.fixture(params=MODELS)
def encoder(request):
    return load_encoder(request.param)


@pytest.fixture
def pixels(encoder):
    side = encoder.input_size or 96
    return np.random.default_rng(3).integers(0, 256, (5, side, side, 3), np.uint8)


def images(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def same(features, encoder, pixels):
    ours = encoder.encode(pixels)
    np.testing.assert_allclose(features, ours, rtol=1e-3, atol=1e-3 * np.ptp(ours))


@pytest.mark.usefixtures("in_float32")
def test_torchscript(encoder, pixels, tmp_path):
    done = export_encoder(encoder, "torchscript", tmp_path, pixels.shape[1])
    with torch.inference_mode():
        same(torch.jit.load(done.path)(images(pixels)).numpy(), encoder, pixels)


@pytest.mark.usefixtures("in_float32")
def test_torch_export(encoder, pixels, tmp_path):
    done = export_encoder(encoder, "torch-export", tmp_path, pixels.shape[1])
    with torch.inference_mode():
        features = torch.export.load(done.path).module()(images(pixels))
    same(features.numpy(), encoder, pixels)


@pytest.mark.usefixtures("in_float32")
def test_onnx(encoder, pixels, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    done = export_encoder(encoder, "onnx", tmp_path, pixels.shape[1])
    session = runtime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    same(session.run(None, {"images": images(pixels).numpy()})[0], encoder, pixels)
    assert {p.name for p in tmp_path.iterdir()} == {"encoder.onnx", "encoder.json"}


@pytest.mark.usefixtures("in_float32")
def test_a_hub_folder_is_what_timm_loads(encoder, pixels, tmp_path):
    export_encoder(encoder, "hf-hub", tmp_path / "hub")
    model = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(config[k]).reshape(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        features = model((images(pixels) - mean) / std)
    same(features.numpy(), encoder, pixels)
    assert model.num_classes == 0
    names = {p.name for p in (tmp_path / "hub").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md", "recipe.json"}


def test_a_run_s_card_and_patch_size_go_along(tmp_path):
    plain = load_encoder(MODELS[0])
    recipe = {**plain.recipe, "fine_tuning": {"patch_size": 64}, "license": "mit"}
    save_encoder(tmp_path / "mine", plain.module, recipe, "# My card\n")
    done = export_encoder(load_encoder(tmp_path / "mine"), "hf-hub", tmp_path / "hub")
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert done.side == 64 and config["pretrained_cfg"]["input_size"] == [3, 64, 64]
    assert config["pretrained_cfg"]["license"] == "mit"
    assert (tmp_path / "hub" / "README.md").read_text() == "# My card\n"


def test_what_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    from napari_mcm.core.encoders import export as formats

    real = formats._torchscript

    def wrong(module, example, path):
        compute = real(module, example, path)
        return lambda batch: compute(batch) * 1.1

    monkeypatch.setattr(formats, "_torchscript", wrong)
    with pytest.raises(WeightsError, match="other features"):
        export_encoder(load_encoder(MODELS[0]), "torchscript", tmp_path, 64)
    assert not list(tmp_path.iterdir())
