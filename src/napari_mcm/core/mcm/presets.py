"""Named sets of options: what our studies support, the method, and every control.

A control differs from the method in one thing, so that the difference in features says
what that thing does; `docs/method.md` has the table, `docs/results.md` the studies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel

PresetName = Literal[
    "recommended",
    "mcm-kd",
    "paper",
    "adabn",
    "distill",
    "self",
    "shuffled",
    "head",
    "cosine",
]

_MASKED = {"context_mode": "masked"}
_OURS = {
    "target": {"target_norm": "layernorm", "start_at_median": True},
    "optimiser": {"batch_norm": "frozen", "head_epochs": 16},
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The context added nothing that our studies could measure.
    "recommended": {"context": {"context_mode": "none"}, **_OURS},
    "mcm-kd": {"context": _MASKED, **_OURS},
    "paper": {
        "context": _MASKED,
        "target": {"target_norm": "none", "start_at_median": False, "loss": "l1"},
        "optimiser": {
            "batch_norm": "train",
            "epochs": 1,
            "placements": 1,
            "head_epochs": 0,
        },
    },
    "adabn": {
        "context": _MASKED,
        "optimiser": {"learn": "statistics", "batch_norm": "train"},
    },
    "distill": {"context": {"context_mode": "none"}},
    "self": {"context": _MASKED, "teacher": "student"},
    "shuffled": {"context": {"context_mode": "shuffled"}},
    "head": {"context": _MASKED, "optimiser": {"learn": "head"}},
    "cosine": {"context": _MASKED, "target": {"loss": "cosine_smooth_l1"}},
}
"""Options by preset, nested as in ``FinetuneConfig``."""

assert set(PRESETS) == set(get_args(PresetName))


def under(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put a preset's options under those that were given.

    Parameters
    ----------
    preset : mapping
        Options by name, groups of them nested.
    given : mapping
        Likewise; a group may be a model, of which only what was set counts.

    Returns
    -------
    dict
        Both together; what was given wins.
    """
    merged = dict(given)
    for name, value in preset.items():
        if not isinstance(value, Mapping):
            merged.setdefault(name, value)
            continue
        group = given.get(name, {})
        if isinstance(group, BaseModel):
            group = {key: getattr(group, key) for key in group.model_fields_set}
        if isinstance(group, Mapping):
            merged[name] = under(value, group)
    return merged


def in_effect(config: BaseModel, preset: str) -> dict[str, tuple[Any, Any]]:
    """Tell a preset's options by their names: what it says, and what is in effect.

    Returns
    -------
    dict
        ``{"batch_norm": ("train", "frozen")}`` where the line overrode it.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name, value in PRESETS[preset].items():
        inner = getattr(config, name)
        pairs = value.items() if isinstance(value, Mapping) else [(name, value)]
        for option, said in pairs:
            there = getattr(inner, option) if isinstance(value, Mapping) else inner
            found[option] = (said, there)
    return found
