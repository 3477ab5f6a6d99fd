"""Read a run folder of `mil train`, without PyTorch, which is slow to import."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import RunError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.mil.metrics import MAIN
from napari_mcm.viewer.training.metrics import Curves, read_series
from napari_mcm.viewer.training.run_folder import RunState, run_state

PLOTS = ("roc", "precision_recall", "reliability", "confusion")
_INTERVALS = {"by_patient": "patient", "by_slide": "slide"}


@dataclass(frozen=True)
class SlideRow:
    """Hold the prediction of one slide by models that have not seen it."""

    slide: str
    label: str
    predicted: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Figure:
    """Hold one figure of a run, beside that of the majority-class baseline."""

    name: str
    value: float | None
    interval: tuple[float | None, float | None]
    majority: float | None
    folds: tuple[float | None, ...]


@dataclass(frozen=True)
class MilRun:
    """Hold a finished run, ready to be shown.

    Attributes
    ----------
    path : Path
        Folder of the run.
    model : str
        Name of the aggregator.
    classes : tuple of str
        Names, in the order of probabilities.
    rows : tuple of SlideRow
        Predictions, one per slide.
    figures : tuple of Figure
        Figures in the order of :data:`~napari_mcm.core.mil.metrics.MAIN`.
    resampled : str
        Unit that intervals are resampled by: ``"patient"`` or ``"slide"``.
    plots : mapping
        Names to PNG files, of those that exist.
    slides : mapping
        Names of slides to their files, as the cohort's table has them.
    features : Path or None
        Folder of the features that it was trained on.
    encoder : str
        Encoder of the features, or "" where files do not say.
    neighbourhood : NeighbourhoodConfig
        What each feature vector covers; predictions use the same.
    """

    path: Path
    model: str
    classes: tuple[str, ...]
    rows: tuple[SlideRow, ...]
    figures: tuple[Figure, ...]
    resampled: str
    plots: Mapping[str, Path]
    slides: Mapping[str, Path]
    features: Path | None
    encoder: str
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()

    @property
    def trained_on(self) -> str:
        """Describe the features in a few words: encoder, and what each vector covers."""
        text = f"features of {self.encoder or 'an unnamed encoder'}"
        context = self.neighbourhood
        return f"{text}, {context.describe()} patches" if context.radius else text


def state_of(folder: Path) -> RunState:
    """Return whether a folder is free for a run, or what it holds."""
    return run_state(folder, "mil train", _done)


def read_run(folder: Path) -> MilRun:
    """Read a finished run.

    Raises
    ------
    RunError
        If it is no run, unfinished, or damaged.
    """
    state = state_of(folder)
    if state.kind == "unfinished":
        hint = "Resume it in Train: choose it as the run folder"
        raise RunError("is not finished", folder, hint)
    if state.kind != "finished":
        raise RunError("is no run of mil train", folder)
    try:
        return _read(folder)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"cannot be read ({reason})", folder) from error


def read_fold_curves(folder: Path) -> Curves:
    """Read the curves of all folds and seeds of a run, finished or not."""
    try:
        names = [str(fold["name"]) for fold in _json(folder / "folds.json")["folds"]]
    except (OSError, KeyError, TypeError, ValueError):
        return {}
    found: Curves = {}
    for file in sorted((folder / "models").glob("fold_*_seed_*/metrics.csv")):
        name, _, seed = file.parent.name.removeprefix("fold_").rpartition("_seed_")
        if name in names and seed.isdigit():
            found[names.index(name), int(seed)] = read_series(file.parent)
    return found


def _read(folder: Path) -> MilRun:
    config, folds = _json(folder / "config.json"), _json(folder / "folds.json")
    classes = tuple(str(name) for name in folds["classes"])
    figures = _json(folder / "figures.json")
    resampled = "by_patient" if folds.get("has_patients") else "by_slide"
    plots = {name: folder / "plots" / f"{name}.png" for name in PLOTS}
    beside = Path(config["cohort"]).parent
    features, source = config.get("features"), folds.get("features", {})
    return MilRun(
        folder,
        str(config["aggregator"]["model"]),
        classes,
        tuple(_rows(folder / "predictions.csv", classes)),
        tuple(_figure(name, figures, resampled) for name in MAIN),
        _INTERVALS[resampled],
        {name: file for name, file in plots.items() if file.is_file()},
        {c["slide"]: beside / c["path"] for c in folds["cases"] if c["path"]},
        Path(features) if features else None,
        str(source.get("encoder", "")),
        # Runs of earlier versions are of single patches.
        NeighbourhoodConfig.model_validate(source.get("neighbourhood", {})),
    )


def _figure(name: str, figures: Mapping[str, Any], resampled: str) -> Figure:
    low, high = figures[resampled][name]
    return Figure(
        name,
        figures["pooled"][name],
        (low, high),
        figures["baseline"][name],
        tuple(fold[name] for fold in figures["folds"].values()),
    )


def _rows(file: Path, classes: tuple[str, ...]) -> list[SlideRow]:
    with file.open(newline="", encoding="utf-8") as opened:
        return [
            SlideRow(
                row["slide"],
                row["label"],
                row["predicted"],
                tuple(float(row[f"p_{name}"]) for name in classes),
            )
            for row in csv.DictReader(opened)
        ]


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _done(folder: Path) -> str:
    count = len(list((folder / "models").glob("fold_*/summary.json")))
    return f"{count} training done" if count == 1 else f"{count} trainings done"
