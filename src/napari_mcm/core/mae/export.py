"""Export of a pre-training: the encoder for timm, and the decoder for reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from napari_mcm import __version__
from napari_mcm.core.encoders import save_encoder
from napari_mcm.core.encoders.cost import module_cost
from napari_mcm.core.encoders.learned_from import LearnedFrom
from napari_mcm.core.mae.config import PretrainConfig
from napari_mcm.core.mae.model import MaskedAutoencoder, architecture, model_arguments
from napari_mcm.core.runtime.files import atomic_path

DECODER_FILE = "decoder.safetensors"


def export_pretraining(
    run_dir: Path,
    model: MaskedAutoencoder,
    config: PretrainConfig,
    summary: Mapping[str, Any],
    start: Mapping[str, Any] | None,
    learned: LearnedFrom,
) -> Path:
    """Write the encoder so that timm alone can load it, and the decoder beside it.

    Parameters
    ----------
    run_dir : Path
        Gets ``encoder/`` and ``decoder.safetensors``.
    model : MaskedAutoencoder
        The model as trained.
    config : PretrainConfig
        Options of the run.
    summary : mapping
        Figures of the run.
    start : mapping or None
        Recipe of the encoder that it started from.
    learned : LearnedFrom
        The slides of this training, and of that encoder.

    Returns
    -------
    Path
        The encoder's directory.
    """
    decoder = {
        name: tensor.detach().cpu().contiguous()
        # The decoder has a file of its own: timm cannot load weights it does not know.
        for name, tensor in model.decoder.state_dict().items()
    }
    with atomic_path(run_dir / DECODER_FILE) as part:
        save_file(decoder, part)
    model.eval()
    folder = run_dir / "encoder"
    recipe = _recipe(config, summary, start) | learned.record()
    return save_encoder(
        folder, model.encoder, recipe, _card(run_dir, model, config, summary)
    )


def licence_of(recipe: Mapping[str, Any]) -> str:
    """Return the licence of an encoder's weights.

    Parameters
    ----------
    recipe : mapping
        Its recipe.

    Returns
    -------
    str
        ``unknown`` where none is stated.
    """
    return str(recipe.get("license") or "unknown")


def _recipe(
    config: PretrainConfig,
    summary: Mapping[str, Any],
    start: Mapping[str, Any] | None,
) -> dict[str, Any]:
    groups = {"model", "masking", "images", "augment", "recipe"}
    options = config.model_dump(mode="json", include=groups)
    # Paths mean nothing on another computer.
    options["images"].pop("slides")
    return {
        "architecture": architecture(config.model),
        "model_args": model_arguments(config.model),
        "preprocessing": {
            "mean": config.augment.mean,
            "std": config.augment.std,
            "input_size": config.model.image_size,
            "interpolation": "bicubic",
        },
        "weights": f"masked autoencoding from {config.start or 'random weights'}",
        "license": None if start is None else licence_of(start),
        "pretraining": {
            "method": "MAE",
            "preset": config.preset,
            "start": config.start,
            "options": options,
            "summary": dict(summary),
            "version": __version__,
        },
    }


def _card(
    run_dir: Path,
    trained: MaskedAutoencoder,
    config: PretrainConfig,
    summary: Mapping[str, Any],
) -> str:
    model, masking, recipe = config.model, config.masking, config.recipe
    cost = module_cost(trained.encoder, model.image_size)
    first, last = (
        "none" if value is None else f"{value:.4f}"
        for value in (summary["loss_first"], summary["loss_last"])
    )
    arguments = "".join(f", {k}={v!r}" for k, v in model_arguments(model).items())
    return f"""---
library_name: timm
tags: [histopathology, feature-extraction, napari-mcm]
---

# {run_dir.name}: {architecture(model)} by masked autoencoding

A Vision Transformer for pathology images, pre-trained without labels by masked
autoencoding (He et al., CVPR 2022) in napari-mcm {__version__}. It is meant to initialise
fine-tuning; frozen features of masked autoencoders are weak.

| | |
|---|---|
| input | {model.image_size} px, patches of {model.vit_patch} px, \
normalisation {config.augment.normalisation} |
| size | {cost.describe()} |
| trained on | {summary["images"]:,} images ({summary["pictures"]:,} pictures, \
{config.images.tiles} tiles per side; {summary["slide_patches"]:,} slide patches) |
| steps | {summary["steps"]:,} of {recipe.batch_size} images, peak rate \
{recipe.peak_lr:.3g} |
| hidden | {masking.mask_ratio:.0%} of the patches |
| loss | {first} → {last} |
| started from | {config.start or "random weights"} |

The loss shows that training ran, not that the encoder is better for a task: evaluate it
on labelled data before you rely on it. Not for clinical use.

```python
import timm
from safetensors.torch import load_file

model = timm.create_model("{architecture(model)}", num_classes=0{arguments})
model.load_state_dict(load_file("model.safetensors"))
```

Preprocessing (mean, standard deviation) and every option are in `recipe.json`.
"""
