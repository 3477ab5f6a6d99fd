"""Export of encoders to TorchScript, torch.export, ONNX, and a folder for the hub.

The files take RGB from 0 to 1 and normalise it themselves: forgetting to normalise is
the most common way to get wrong features. Each file is loaded again and compared before
it takes its name.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_mcm import __version__
from napari_mcm.core.encoders.cost import measure_cost, module_cost, recipe_side
from napari_mcm.core.encoders.encoder import Encoder
from napari_mcm.core.encoders.recipe import CARD_FILE, RECIPE_FILE, WEIGHTS_FILE, Recipe
from napari_mcm.core.errors import ConfigError, WeightsError
from napari_mcm.core.runtime.files import atomic_path, write_json, write_text

Format = Literal["torchscript", "torch-export", "onnx", "hf-hub"]

TOLERANCE = 1e-3
"""Largest difference of an exported encoder, as a fraction of the features' range."""


_ENDINGS = {"torchscript": ".ts", "torch-export": ".pt2", "onnx": ".onnx"}

_Compute = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes
    ----------
    path : Path
        The file, or the folder.
    side : int
        Side of the patches that it takes, in pixels.
    difference : float
        Largest difference of a feature on random patches, as a fraction of their range.
    """

    path: Path
    side: int
    difference: float


def export_encoder(encoder: Encoder, to: Format, out: Path, side: int = 0) -> Exported:
    """Write an encoder for another tool and verify what was written.

    Parameters
    ----------
    encoder : Encoder
        On the CPU.
    to : {"torchscript", "torch-export", "onnx", "hf-hub"}
        Files take float32 (B, 3, side, side), RGB from 0 to 1, and give (B, dim).
        ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads the folder for
        the hub; it expects input as its ``config.json`` describes it.
    out : Path
        The folder for the hub, or a folder that gets ``encoder.ts``, ``.pt2`` or
        ``.onnx`` and ``encoder.json``, which describes the input.
    side : int, optional
        Side of patches in pixels; by default that of the fine-tuning, else 224.

    Returns
    -------
    Exported
        Where it is and how far it differs.

    Raises
    ------
    ConfigError
        If the software for the format is not installed.
    WeightsError
        If the exported encoder gives other features.
    """
    side = side or input_side(encoder)
    if to == "hf-hub":
        return _for_hub(encoder, out, side)
    module = _FromPixels(encoder).eval()
    path = out / f"encoder{_ENDINGS[to]}"
    writer = {
        "torchscript": _torchscript,
        "torch-export": _torch_export,
        "onnx": _onnx,
    }[to]
    example = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    # The file takes its name only once what it computes has been compared.
    with atomic_path(path) as part:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compute = writer(module, example, part)
        difference = _compare(module, compute, side, path)
    write_json(out / "encoder.json", _description(encoder, side))
    return Exported(path, side, difference)


def input_side(encoder: Encoder) -> int:
    """Return the side of the patches that an encoder is meant for.

    Parameters
    ----------
    encoder : Encoder
        Its fixed input size counts first, then the patch size of its fine-tuning.

    Returns
    -------
    int
        Side in pixels; 224 where neither is known.
    """
    return encoder.input_size or recipe_side(encoder.recipe)


class _FromPixels(nn.Module):
    """An encoder that normalises its input itself."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        # A copy: the encoder itself may be in use on a GPU.
        plain = copy.deepcopy(encoder.module).cpu().float().eval()
        self.module = plain.to(memory_format=torch.contiguous_format)
        for name, values in (("mean", encoder.mean), ("std", encoder.std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        images = (images - self.mean) / self.std  # (B, 3, side, side)
        features: Tensor = self.module(images)  # (B, dim)
        return features


def _torchscript(module: nn.Module, example: Tensor, path: Path) -> _Compute:
    with torch.no_grad():
        # `_compare` checks the file itself, on another batch size.
        traced = torch.jit.trace(module, example, check_trace=False)
    traced.save(str(path))
    loaded = torch.jit.load(str(path))
    return lambda images: _numpy(loaded(torch.from_numpy(images)))


def _torch_export(module: nn.Module, example: Tensor, path: Path) -> _Compute:
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    loaded: Any = torch.export.load(path).module()
    return lambda images: _numpy(loaded(torch.from_numpy(images)))


def _onnx(module: nn.Module, example: Tensor, path: Path) -> _Compute:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError(
            "ONNX needs software that is not installed",
            "--to onnx",
            "Install it with: pip install 'napari-mcm[onnx]'",
        ) from None
    torch.onnx.export(
        module,
        (example,),
        path,
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: cast(
        NDArray[np.float32], session.run(None, {"images": images})[0]
    )


def _numpy(features: Tensor) -> NDArray[np.float32]:
    return features.detach().numpy()


def _compare(module: nn.Module, compute: _Compute, side: int, path: Path) -> float:
    """Return how far an export differs, on other patches and another batch size.

    Raises
    ------
    WeightsError
        If it differs by more than `TOLERANCE`.
    """
    images = np.random.default_rng(1).random((3, 3, side, side), np.float32)
    with torch.inference_mode():
        ours = module(torch.from_numpy(images)).numpy()
    theirs = compute(images)
    difference = float(np.abs(theirs - ours).max() / max(float(np.ptp(ours)), 1e-12))
    # Also refuses NaN, which is not less than anything.
    if not difference < TOLERANCE:
        raise WeightsError(
            "gives other features than the encoder "
            f"(by {difference:.2g} of their range)",
            path,
            "Try another --to",
        )
    return difference


def _description(encoder: Encoder, side: int) -> dict[str, Any]:
    return {
        "input": f"float32 (batch, 3, {side}, {side}), RGB from 0 to 1, not normalised",
        "output": f"float32 (batch, {encoder.dim})",
        "encoder": encoder.describe() | {"precision": "float32"},
        "software": f"napari-mcm {__version__}",
    }


def _for_hub(encoder: Encoder, out: Path, side: int) -> Exported:
    import timm
    from safetensors.torch import save_file

    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in encoder.module.state_dict().items()
    }
    with atomic_path(out / WEIGHTS_FILE) as part:
        save_file(state, part, metadata={"format": "pt"})
    write_text(out / CARD_FILE, _card(encoder, side))
    cost = measure_cost(encoder, side)
    write_json(out / RECIPE_FILE, encoder.recipe | cost.record())
    # Last: a folder with a configuration is complete.
    write_json(out / "config.json", _hub_config(encoder, side))
    loaded = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    ours = _FromPixels(encoder)
    theirs = _FromPixels(encoder)
    theirs.module = loaded

    def compute(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return _numpy(theirs(torch.from_numpy(images)))

    return Exported(out, side, _compare(ours, compute, side, out))


def _hub_config(encoder: Encoder, side: int) -> dict[str, Any]:
    preprocessing = encoder.recipe["preprocessing"]
    config: dict[str, Any] = {
        "architecture": encoder.architecture,
        "num_classes": 0,
        "num_features": encoder.dim,
        "pretrained_cfg": {
            "tag": "napari_mcm",
            "custom_load": False,
            "input_size": [3, side, side],
            "fixed_input_size": encoder.input_size is not None,
            "interpolation": preprocessing["interpolation"],
            # timm's own evaluation would otherwise crop a patch's border.
            "crop_pct": 1.0,
            "mean": list(encoder.mean),
            "std": list(encoder.std),
            "num_classes": 0,
        },
    }
    if encoder.recipe.get("license"):
        config["pretrained_cfg"]["license"] = encoder.recipe["license"]
    if encoder.recipe.get("model_args"):
        config["model_args"] = dict(encoder.recipe["model_args"])
    return config


def _card(encoder: Encoder, side: int) -> str:
    """Return the model card beside the weights, or write a short one."""
    for folder in (Path(encoder.spec) / "encoder", Path(encoder.spec)):
        if (folder / CARD_FILE).is_file():
            return (folder / CARD_FILE).read_text(encoding="utf-8")
    licence = encoder.recipe.get("license") or "unknown"
    source = encoder.recipe.get("weights") or encoder.spec
    facts = json.dumps(encoder.recipe["preprocessing"])
    return f"""---
library_name: timm
license: {licence}
tags: [feature-extraction, napari-mcm]
---

# {encoder.architecture}

A patch encoder, exported by napari-mcm {__version__} from: {source}. It gives
{encoder.dim} features per patch and has {measure_cost(encoder, side).describe()}.
Preprocessing: `{facts}`. Not for clinical use.
"""


def save_encoder(
    folder: Path, module: nn.Module, recipe: Mapping[str, Any], card: str
) -> Path:
    """Write an encoder's weights, recipe and model card.

    ``timm.create_model(recipe["architecture"], num_classes=0)`` with
    ``load_state_dict`` loads the result without this package.

    Parameters
    ----------
    folder : Path
        Gets ``model.safetensors``, ``recipe.json`` and ``README.md``.
    module : nn.Module
        A timm model.
    recipe : mapping
        As :attr:`Encoder.recipe`; further entries are kept, and the cost is added.
    card : str
        The model card, in Markdown.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    WeightsError
        If the recipe lacks what is needed to load the weights.
    """
    try:
        checked = Recipe.model_validate(dict(recipe))
    except ValidationError as error:
        raise WeightsError(
            f"recipe is incomplete ({error.errors()[0]['msg']})"
        ) from None
    # A training may share or stride weights; the file holds plain contiguous ones.
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
    folder = Path(folder)
    with atomic_path(folder / WEIGHTS_FILE) as part:
        save_file(state, part, metadata={"format": "pt"})
    write_text(folder / CARD_FILE, card)
    cost = module_cost(module, recipe_side(recipe))
    # The recipe last: a folder with a recipe is complete.
    write_json(folder / RECIPE_FILE, checked.plain() | cost.record())
    return folder
