"""Named sets of options for pre-training: the reference recipe, and three experiments.

The experiments are those of lennardong/MAE-ViTClassifier (October 2023) as they were
run, which is not always as they were reported; `docs/mae.md` has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel

PresetName = Literal["reference", "experiment1", "experiment2", "experiment3"]

_AS_RUN: Mapping[str, Any] = {
    "model": {"model": "base", "image_size": 224, "vit_patch": 16},
    "images": {"tiles": 4},
    "augment": {"crop_scale": 0.2, "normalisation": "none"},
}


def _experiment(mask_ratio: float, **recipe: Any) -> dict[str, Any]:
    common = {"warmup": 0.05, "beta2": 0.999, "epochs": 100, "clip_norm": 1.0}
    return {
        **_AS_RUN,
        "masking": {"mask_ratio": mask_ratio},
        "recipe": {**common, **recipe},
    }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "reference": {},
    "experiment1": _experiment(
        0.5, base_lr=1.5e-4, batch_size=1920, schedule="cosine", weight_decay=0.05
    ),
    "experiment2": _experiment(
        0.75, base_lr=5e-5, batch_size=640, schedule="cosine", weight_decay=0.01
    ),
    "experiment3": _experiment(
        0.25, base_lr=8e-5, batch_size=640, schedule="linear", weight_decay=0.01
    ),
}
"""Options by preset, nested as in ``PretrainConfig``; the reference's are the defaults."""

assert set(PRESETS) == set(get_args(PresetName))


def fill_in(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Add a preset's options to those that were given, which win.

    Parameters
    ----------
    preset : mapping
        Options by name, groups of them nested.
    given : mapping
        Likewise; a group may be a model, of which only what was set counts.
    """
    filled = dict(given)
    for name, value in preset.items():
        if not isinstance(value, Mapping):
            filled.setdefault(name, value)
            continue
        group = given.get(name, {})
        if isinstance(group, BaseModel):
            group = group.model_dump(include=group.model_fields_set)
        if isinstance(group, Mapping):
            filled[name] = {**value, **group}
    return filled
