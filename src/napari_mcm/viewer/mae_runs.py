"""What lies in run folders of masked autoencoders, classifiers and ablations.

Read without PyTorch, which is slow to start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_mcm.viewer.finetune_runs import read_series
from napari_mcm.viewer.run_folders import RunState, read_config, run_state

_PRETRAINING = {"pictures", "masking", "recipe"}
_CLASSIFIER = {"init", "fit", "labels"}
_ABLATION = {"arms", "percent", "fit"}


@dataclass(frozen=True)
class TrainedRun:
    """A finished pre-training, or a trained classifier.

    Attributes
    ----------
    path : Path
        Its folder.
    config, summary : mapping
        Its options, and how it ended.
    """

    path: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]

    def describe(self) -> str:
        """Say in a line what came of it."""
        text = f"{self.summary.get('images', 0):,} images learned from"
        first, last = self.summary.get("loss_first"), self.summary.get("loss_last")
        if isinstance(first, float) and isinstance(last, float):
            text += f", loss {first:.3f} → {last:.3f}"
        return text

    @property
    def scores(self) -> Mapping[str, Any]:
        """What a classifier scores on validation images; empty where nothing is."""
        found = self.summary.get("scores")
        return found if isinstance(found, dict) else {}

    @property
    def confusion(self) -> Path:
        """The picture of a classifier's confusion matrix."""
        return self.path / "validation" / "confusion.png"


@dataclass(frozen=True)
class AblationRun:
    """An ablation as far as it has come.

    Attributes
    ----------
    path : Path
        Its folder.
    table : str
        Its table as Markdown.
    figures : mapping
        Titles to pictures.
    """

    path: Path
    table: str
    figures: Mapping[str, Path] = field(default_factory=dict)

    def describe(self) -> str:
        """Say how far it is."""
        done, asked = _cells(self.path)
        return f"{done:,} of {asked:,} classifiers done"


def pretraining_state(folder: Path) -> RunState:
    """Tell whether a folder is free for a pre-training, or what it holds."""
    return run_state(folder, _PRETRAINING, _steps)


def classifier_state(folder: Path) -> RunState:
    """Tell whether a folder is free for a classifier, or what it holds."""
    return run_state(folder, _CLASSIFIER, _steps)


def ablation_state(folder: Path) -> RunState:
    """Tell whether a folder is free for an ablation, or what it holds.

    One that is done takes more parts, seeds and arms: it is as good as free.
    """
    state = run_state(folder, _ABLATION, lambda _: "")
    if state.kind not in ("unfinished", "finished"):
        return state
    done, asked = _cells(folder)
    if done < asked:
        text = f"Holds an ablation, {done:,} of {asked:,} classifiers done."
        return RunState("unfinished", text)
    text = f"Holds {done:,} classifiers: other arms, parts or seeds are added to them."
    return RunState("free", text)


def ablation_options(folder: Path) -> dict[str, Any]:
    """Give the options of an ablation that was begun, with its folder."""
    config = read_config(folder)
    # The fingerprint of its images is kept beside them.
    config.pop("images", None)
    return {**config, "out": folder}


def _cells(folder: Path) -> tuple[int, int]:
    config = read_config(folder)
    parts = (config.get("arms", ()), config.get("percent", ()))
    asked = len(parts[0]) * len(parts[1]) * int(config.get("seeds", 0))
    return len(list(folder.glob("cells/*/*/*/summary.json"))), asked


def read_trained(folder: Path) -> TrainedRun | None:
    """Read a finished pre-training or classifier; None where there is none."""
    config = read_config(folder)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = set(config) >= _PRETRAINING or set(config) >= _CLASSIFIER
    if not known or not isinstance(summary, dict):
        return None
    return TrainedRun(folder, config, summary)


def read_ablation(folder: Path) -> AblationRun | None:
    """Read what an ablation has written so far; None where there is nothing."""
    try:
        table = (folder / "ablation.md").read_text(encoding="utf-8")
    except OSError:
        return None
    figures = {
        "Learning curves": folder / "learning_curves.png",
        "Confidence by class": folder / "confidence.png",
    }
    there = {title: path for title, path in figures.items() if path.is_file()}
    return AblationRun(folder, table, there)


def _steps(folder: Path) -> str:
    steps = read_series(folder).get("step", [])
    return f"{round(steps[-1]) + 1:,} steps done" if steps else ""
