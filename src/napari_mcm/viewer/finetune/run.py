"""Read a run folder of `finetune`, without PyTorch, which is slow to import."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from napari_mcm.core.grid import GridConfig
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.tissue import TissueConfig
from napari_mcm.viewer.finetune.click_test import ClickResult, read_click_result
from napari_mcm.viewer.training.metrics import read_series
from napari_mcm.viewer.training.run_folder import RunState, read_config, run_state

_Config = TypeVar("_Config", bound=BaseModel)


@dataclass(frozen=True)
class FinetuneRun:
    """Hold a finished fine-tuning.

    Attributes
    ----------
    path : Path
        Folder of the run, which names the fine-tuned encoder, too.
    student, teacher : str
        Encoder before fine-tuning, and encoder of the targets; the teacher is "" where
        it is the student itself.
    grid : GridConfig
        Grid of patches, at the resolution of the training.
    summary : mapping
        Final figures.
    learned_from : mapping
        The record of all slides behind the encoder, from its recipe; empty for runs of
        earlier versions, whose slides would have to be opened.
    """

    path: Path
    student: str
    teacher: str
    grid: GridConfig
    summary: Mapping[str, Any]
    learned_from: Mapping[str, Any] = field(default_factory=dict)
    read: ReadConfig = ReadConfig()
    tissue: TissueConfig = TissueConfig()
    clicks: ClickResult | None = None

    def describe(self) -> str:
        """Return the result in one line."""
        first, last = self.summary.get("loss_first"), self.summary.get("loss_last")
        windows = self.summary.get("windows", 0)
        text = f"{windows:,} training windows"
        if isinstance(first, float) and isinstance(last, float):
            text += f", loss {first:.3f} → {last:.3f}"
        return text


def state_of(folder: Path) -> RunState:
    """Return whether a folder is free for a run, or what it holds."""
    return run_state(folder, "finetune", _done)


def read_run(folder: Path) -> FinetuneRun | None:
    """Read a finished run; None where there is none."""
    if state_of(folder).kind != "finished":
        return None
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    summary = summary if isinstance(summary, dict) else {}
    config = read_config(folder)
    student, teacher = (str(config.get(one, "")) for one in ("student", "teacher"))
    if teacher in ("student", student):
        teacher = ""
    record = _record(folder)
    return FinetuneRun(
        folder,
        student,
        teacher,
        _grid(config, summary),
        summary,
        record,
        _part(config, "read", ReadConfig),
        _part(config, "tissue", TissueConfig),
        read_click_result(folder, record),
    )


def _record(folder: Path) -> dict[str, Any]:
    """Read the training set of the encoder, as its recipe states it."""
    try:
        file = folder / "encoder" / "recipe.json"
        recipe = json.loads(file.read_text(encoding="utf-8"))
        return {"learned_from": recipe["learned_from"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _grid(config: Mapping[str, Any], summary: Mapping[str, Any]) -> GridConfig:
    """Read the grid of patches, with the resolution that was chosen if automatic."""
    mpp = summary.get("mpp")
    chosen = {"mpp": mpp} if isinstance(mpp, float) else {}
    return _part(config, "grid", GridConfig, chosen)


def _part(
    config: Mapping[str, Any],
    name: str,
    model: type[_Config],
    chosen: Mapping[str, Any] | None = None,
) -> _Config:
    """Read a group of options; the defaults where the file is damaged."""
    group = config.get(name)
    stated = group if isinstance(group, dict) else {}
    try:
        return model.model_validate({**stated, **(chosen or {})})
    except ValidationError:
        return model()


def _done(folder: Path) -> str:
    steps = read_series(folder).get("step", [])
    return f"{round(steps[-1]) + 1:,} steps done" if steps else ""
