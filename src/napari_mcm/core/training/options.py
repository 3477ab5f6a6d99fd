"""Options that several trainings share, and presets of options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Fields of one base model would all come first in forms, help and config.json. As types,
# each training lists them where it has always had them, with its own default.
RunFolder = Annotated[
    Path | None, Field(description="Directory of the run; new or empty.")
]
Workers = Annotated[
    int, Field(ge=0, le=64, description="Threads that read slides or images ahead.")
]
Chunk = Annotated[
    Annotated[int, Field(ge=1)] | Literal["auto"],
    Field(
        description="Images or windows computed at once within a step; auto keeps "
        "cancelling under a second on a CPU, and is large on a GPU."
    ),
]
CheckpointSeconds = Annotated[
    float,
    Field(ge=0, description="Seconds between checkpoints; 0 saves after every step."),
]

Presets = Mapping[str, Mapping[str, Any]]
"""Options by preset, nested as in the model."""


class TrainingOptions(BaseModel):
    """All options of a training; a preset sets those that are not given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    presets: ClassVar[Presets] = {}
    """What ``preset`` can be, where the training has this option."""

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("preset") not in cls.presets:
            return given
        return merge_preset(cls.presets[given["preset"]], given)


class RunPaths(BaseModel):
    """A run, and what it is applied to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: tuple[Path, ...]

    @property
    def run(self) -> Path:
        """Return the directory of the run.

        Returns
        -------
        Path
            The first path.
        """
        return self.paths[0]

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Return the files and folders that the run is applied to.

        Returns
        -------
        tuple of Path
            All paths but the first.
        """
        return self.paths[1:]


def merge_preset(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a preset's options with explicitly given ones.

    Parameters
    ----------
    preset : mapping
        Options by name; groups of options are nested mappings.
    given : mapping
        Options by name, nested likewise. A group may be a pydantic model, of which only the
        fields that were set count.

    Returns
    -------
    dict
        All options; a given option overrides the preset's.
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
            merged[name] = merge_preset(value, group)
    return merged
