"""Read run folders of classifiers and ablations, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_mcm.viewer.training.run_folder import RunState, read_config, run_state
from napari_mcm.viewer.training.trained_run import steps_done


@dataclass(frozen=True)
class AblationRun:
    """Hold an ablation, finished or not.

    Attributes
    ----------
    path : Path
        Folder of the ablation.
    table : str
        Its table as Markdown.
    figures : mapping
        Titles of figures to their files.
    """

    path: Path
    table: str
    figures: Mapping[str, Path] = field(default_factory=dict)

    def describe(self) -> str:
        """Return the progress in one line."""
        done, asked = _done_and_asked(self.path)
        return f"{done:,} of {asked:,} classifiers done"


def classifier_state(folder: Path) -> RunState:
    """Return whether a folder is free for a classifier, or what it holds."""
    return run_state(folder, "classify train", steps_done)


def ablation_state(folder: Path) -> RunState:
    """Return whether a folder is free for an ablation, or what it holds.

    A finished one counts as free: more arms, fractions and seeds can be added.
    """
    state = run_state(folder, "ablate", lambda _: "")
    if state.kind not in ("unfinished", "finished"):
        return state
    done, asked = _done_and_asked(folder)
    if done < asked:
        text = f"Holds an ablation, {done:,} of {asked:,} classifiers done."
        return RunState("unfinished", text)
    text = f"Holds {done:,} classifiers: other arms, fractions or seeds are added."
    return RunState("free", text)


def ablation_options(folder: Path) -> dict[str, Any]:
    """Return the options of an existing ablation, with its folder."""
    config = read_config(folder)
    # The fingerprint of the images is no option.
    config.pop("images", None)
    return {**config, "out": folder}


def _done_and_asked(folder: Path) -> tuple[int, int]:
    config = read_config(folder)
    parts = (config.get("arms", ()), config.get("percent", ()))
    asked = len(parts[0]) * len(parts[1]) * int(config.get("seeds", 0))
    return len(list(folder.glob("cells/*/*/*/summary.json"))), asked


def read_ablation(folder: Path) -> AblationRun | None:
    """Read the results of an ablation so far; None where there are none."""
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
