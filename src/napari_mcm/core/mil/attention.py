"""Attention maps of a trained run on one slide, with an occlusion check, as a job.

The models' mean attention is written as a heatmap, a table and a gallery of the top
patches. Attention alone does not show that a patch matters: the check removes the k
patches of greatest attention and, for comparison, k random ones, and reports how much
the probability p of the class falls::

    drop_top    = p(all) - p(without top k)
    drop_random = mean over draws of  p(all) - p(without k random)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.interchange import read_foreign
from napari_mcm.core.heatmaps import Heatmap, write_heatmap
from napari_mcm.core.mil.attention_maps import draw_gallery
from napari_mcm.core.mil.bags import Vectors, find_files
from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.core.mil.config import AttentionConfig
from napari_mcm.core.mil.ensemble import Ensemble
from napari_mcm.core.mil.results import read_folds
from napari_mcm.core.mil.slide_prediction import SlidePrediction, predict_slide
from napari_mcm.core.runtime.files import write_json, write_text
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.threads import report_while_running
from napari_mcm.core.slides import Slide
from napari_mcm.core.training.run import Run

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Occlusion:
    """Fall of a class's probability when patches are removed.

    Attributes
    ----------
    class_name : str
        The class.
    removed : int
        Number of patches removed.
    whole : float
        Probability with all patches.
    drop_top : float
        Fall without the patches of greatest attention.
    drop_random, drop_random_sd : float
        Fall without as many random patches: mean and standard deviation over the draws.
    draws : int
        Number of random sets.
    """

    class_name: str
    removed: int
    whole: float
    drop_top: float
    drop_random: float
    drop_random_sd: float
    draws: int


def occlude(
    ensemble: Ensemble,
    vectors: Vectors,
    weights: Floats,
    number: int,
    part: float,
    draws: int,
    seed: int = 0,
) -> Generator[None, None, Occlusion | None]:
    """Remove the patches of greatest attention, and random ones for comparison.

    Parameters
    ----------
    ensemble : Ensemble
        Models whose mean probability is measured.
    vectors : ndarray of floating, shape (N, D)
        Features of the slide's patches.
    weights : ndarray of float64, shape (N,)
        Attention of the patches.
    number : int
        Index of the class.
    part : float
        Fraction of the patches to remove; at least one is removed.
    draws : int
        Number of random sets.
    seed : int, optional
        Random seed of these sets.

    Yields
    ------
    None
        Between the models, so that the caller can cancel.

    Returns
    -------
    Occlusion or None
        None for a slide that would lose all its patches.
    """
    count = max(round(part * len(vectors)), 1)
    if count >= len(vectors):
        return None
    whole = float((yield from ensemble.predict(vectors))[number])
    # Chosen by the mean attention, so that all models lose the same patches.
    top = np.argsort(weights)[-count:]
    without = yield from ensemble.predict(np.delete(vectors, top, axis=0))
    # Without the random draws a fall could come from the smaller bag alone.
    rng = np.random.default_rng([seed, 6])
    drops = []
    for _ in range(draws):
        gone = rng.choice(len(vectors), count, replace=False)
        left = yield from ensemble.predict(np.delete(vectors, gone, axis=0))
        drops.append(whole - float(left[number]))
    return Occlusion(
        ensemble.classes[number],
        count,
        whole,
        whole - float(without[number]),
        float(np.mean(drops)),
        float(np.std(drops, ddof=1)),
        draws,
    )


_MAPS = ("png", "ome.tif", "geojson")


@dataclass(frozen=True, eq=False)
class AttentionResult:
    """Attention of a run on a slide.

    Attributes
    ----------
    slide : str
        Name of the slide.
    heatmap : Heatmap
        Attention to the chosen class.
    weights : ndarray of float64, shape (N,)
        Attention of the patches with features, before scaling; sums to 1.
    class_name : str
        The chosen class.
    probabilities : dict of str to float
        Mean probability of each class.
    effective : float
        Effective number of attended patches.
    top : tuple of int
        Rows of the grid of the patches with greatest attention, best first.
    occlusion : Occlusion or None
        None where there are too few patches.
    caveat : str
        What the map shows, where it is not plain attention.
    neighbourhood : NeighbourhoodConfig
        What each feature vector covers.
    files : tuple of Path
        Files written.
    """

    slide: str
    heatmap: Heatmap
    weights: Floats
    class_name: str
    probabilities: dict[str, float]
    effective: float
    top: tuple[int, ...]
    occlusion: Occlusion | None
    caveat: str
    neighbourhood: NeighbourhoodConfig
    files: tuple[Path, ...]


def attention(config: AttentionConfig) -> Job[AttentionResult]:
    """Write the attention maps of a run on one slide, and check them by occlusion, as a job.

    Writes ``attention.png``, ``.ome.tif``, ``.geojson``, ``patches.csv``,
    ``attention.json`` and, if the slide's pixels are available, ``top_patches.png``.
    Models with an attention per class write one map per class, with the class in the
    file name.

    Parameters
    ----------
    config : AttentionConfig
        Run, slide, features and output folder; which class and folds; scaling.

    Yields
    ------
    Event
        Progress and notes.

    Returns
    -------
    AttentionResult
        The map of the chosen class, with all figures.

    Raises
    ------
    ConfigError
        If an option is missing, the run has no such class, a neighbourhood is asked for
        that is not the run's, or no patch has features.
    FeatureError
        If there are no features of the slide, or they are of another encoder.
    """
    run_dir, name, out = _needed(config)
    name, file = _which_slide(config, name)
    features = _read(config, name, file)
    assert config.features is not None
    prediction, ensemble = yield from predict_slide(
        run_dir,
        name,
        features,
        config.features,
        config.fold,
        config.compute,
        config.neighbourhood,
    )
    number = _class_number(config, prediction)
    check = occlude(
        ensemble,
        prediction.vectors,
        prediction.weights_of(number),
        number,
        config.occlude,
        config.random_draws,
    )
    progress = Progress(f"Removing patches of {name}", 0, None, "patches")
    occlusion = yield from report_while_running(check, progress)
    if prediction.caveat:
        yield Note(prediction.caveat)
    report = _AttentionReport(config, prediction, ensemble, number, occlusion)
    with _opened(config, file) as slide:
        return (yield from report.write(out, slide))


@dataclass(frozen=True, eq=False)
class _AttentionReport:
    """Everything about a slide that is about to be written."""

    config: AttentionConfig
    prediction: SlidePrediction
    ensemble: Ensemble
    number: int
    occlusion: Occlusion | None

    def write(self, out: Path, slide: Slide | None) -> Job[AttentionResult]:
        """Write all files; the map of the chosen class comes first."""
        prediction, classes = self.prediction, self.prediction.classes
        numbers = [self.number]
        if prediction.per_class:
            # The chosen class comes first, as the result holds its map alone.
            numbers += [n for n in range(len(classes)) if n != self.number]
        maps: list[Heatmap] = []
        files: list[Path] = []
        for number in numbers:
            heatmap = prediction.heatmap(self.config.scaling, number)
            maps.append(heatmap)
            stem = "attention"
            if prediction.per_class:
                stem = f"attention_{_safe(classes[number])}"
            for ending in _MAPS:
                yield Progress("Writing maps", len(files), None, "files")
                files.append(write_heatmap(heatmap, out / f"{stem}.{ending}", slide))
        # Rows of the grid, not of the features: a slide's pixels are found by these.
        shown = prediction.grid_weights(self.number)
        top = prediction.top(self.number, self.config.top)
        files += self._write_gallery(out, slide, shown, top)
        files += self._write_table(out, shown)
        result = AttentionResult(
            prediction.slide,
            maps[0],
            prediction.weights_of(self.number),
            classes[self.number],
            dict(zip(classes, map(float, prediction.probabilities), strict=True)),
            prediction.effective(self.number),
            tuple(top),
            self.occlusion,
            prediction.caveat,
            prediction.features.neighbourhood,
            (),
        )
        files.append(self._write_report(out, result))
        return AttentionResult(**{**vars(result), "files": tuple(files)})

    def _write_gallery(
        self, out: Path, slide: Slide | None, shown: Floats, top: list[int]
    ) -> list[Path]:
        if slide is None:
            return []
        from napari_mcm.core.heatmaps.figures import save_figure

        captions = [
            f"{rank}: patch {row}, {shown[row]:.3g}" for rank, row in enumerate(top, 1)
        ]
        title = f"{self.prediction.slide}: greatest {self.prediction.shown}"
        grid = self.prediction.features.grid
        figure = draw_gallery(slide, grid, top, captions, title)
        return [save_figure(figure, out / "top_patches.png")]

    def _write_table(self, out: Path, shown: Floats) -> list[Path]:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["patch", "x", "y", "weight"])
        # Patches without features are not in the table: they have no weight, not 0.
        for row in np.flatnonzero(np.isfinite(shown)):
            x, y = self.prediction.features.grid.xy[row]
            writer.writerow([int(row), int(x), int(y), f"{shown[row]:.8g}"])
        write_text(out / "patches.csv", text.getvalue())
        return [out / "patches.csv"]

    def _write_report(self, out: Path, result: AttentionResult) -> Path:
        prediction = self.prediction
        described: dict[str, Any] = {
            "slide": result.slide,
            "model": self.ensemble.saved[0].config.model,
            "models": prediction.models,
            "folds": self.ensemble.folds,
            "class": result.class_name,
            "probabilities": result.probabilities,
            "scaling": self.config.scaling,
            "patches": len(result.weights),
            "neighbourhood": prediction.features.neighbourhood.model_dump(),
            "effective_patches": result.effective,
            "top_patches": list(result.top),
            "occlusion": None if self.occlusion is None else asdict(self.occlusion),
            "note": result.caveat,
        }
        write_json(out / "attention.json", described)
        return out / "attention.json"


def _needed(config: AttentionConfig) -> tuple[Path, str, Path]:
    for what in ("run", "slide", "features", "out"):
        if getattr(config, what) is None:
            flag = "RUN" if what == "run" else f"--{what}"
            raise ConfigError("is missing", flag)
    assert (
        config.run is not None and config.slide is not None and config.out is not None
    )
    return config.run, config.slide, config.out


def _which_slide(config: AttentionConfig, given: str) -> tuple[str, Path | None]:
    """Return a slide's name and, where it exists, its file."""
    if Path(given).exists():
        return slide_key(given), Path(given)
    assert config.run is not None
    name, run = slide_key(given), Run.open(config.run)
    cohort = run.config().get("cohort")
    for case in read_folds(run.path)["cases"]:
        if case["slide"] == name and case["path"] and cohort:
            file = Path(cohort).parent / case["path"]
            return name, file if file.exists() else None
    return name, None


def _read(config: AttentionConfig, name: str, file: Path | None) -> FeatureSet:
    assert config.features is not None
    files = find_files(config.features)
    if name not in files:
        raise ConfigError(f"has no features of slide {name}", config.features)
    with _opened(config, file) as slide:
        return read_foreign(
            files[name], slide=slide, patch_size_level0=config.patch_size_level0
        )


@contextmanager
def _opened(config: AttentionConfig, file: Path | None) -> Iterator[Slide | None]:
    if file is None:
        yield None
        return
    with config.read.open(file) as slide:
        yield slide


def _class_number(config: AttentionConfig, prediction: SlidePrediction) -> int:
    if config.class_name is None:
        return prediction.winner
    if config.class_name not in prediction.classes:
        raise ConfigError(
            f"there is no class {config.class_name}",
            "--class-name",
            f"The run's classes are {', '.join(prediction.classes)}",
        )
    return prediction.classes.index(config.class_name)


def _safe(name: str) -> str:
    """Replace the characters of a class's name that are unsafe in a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
