"""What lies in run folders of masked autoencoders, classifiers and ablations.

Read without PyTorch, which is slow to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_mcm.viewer.training.run_folder import RunState, read_config, run_state
from napari_mcm.viewer.training.trained_run import CLASSIFIER_KEYS, steps_done

_ABLATION_KEYS = {"arms", "percent", "fit"}


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
        done, asked = _done_and_asked(self.path)
        return f"{done:,} of {asked:,} classifiers done"


def classifier_state(folder: Path) -> RunState:
    """Tell whether a folder is free for a classifier, or what it holds."""
    return run_state(folder, CLASSIFIER_KEYS, steps_done)


def ablation_state(folder: Path) -> RunState:
    """Tell whether a folder is free for an ablation, or what it holds.

    One that is done takes more parts, seeds and arms: it is as good as free.
    """
    state = run_state(folder, _ABLATION_KEYS, lambda _: "")
    if state.kind not in ("unfinished", "finished"):
        return state
    done, asked = _done_and_asked(folder)
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


def _done_and_asked(folder: Path) -> tuple[int, int]:
    config = read_config(folder)
    parts = (config.get("arms", ()), config.get("percent", ()))
    asked = len(parts[0]) * len(parts[1]) * int(config.get("seeds", 0))
    return len(list(folder.glob("cells/*/*/*/summary.json"))), asked


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
