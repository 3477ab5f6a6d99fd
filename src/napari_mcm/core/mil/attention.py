"""What a trained run looks at on a slide, as a job that writes maps and a report."""

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
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.interchange import read_foreign
from napari_mcm.core.heatmaps import Heatmap, write_heatmap
from napari_mcm.core.mil.attention_maps import (
    attention_map,
    draw_gallery,
    effective_number,
    top_patches,
    usable,
)
from napari_mcm.core.mil.bags import Vectors, find_files, source_of
from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.core.mil.config import AttentionConfig
from napari_mcm.core.mil.ensemble import (
    AttentionOutput,
    Ensemble,
    load_ensemble,
    was_trained_on,
)
from napari_mcm.core.mil.results import read_folds
from napari_mcm.core.runtime.files import write_json, write_text
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.threads import report_while_running
from napari_mcm.core.slides import Slide
from napari_mcm.core.training import Run

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Occlusion:
    """How a class's probability changes when patches are removed.

    Attributes
    ----------
    class_name : str
        Whose probability.
    removed : int
        Patches removed.
    whole : float
        Probability with all patches.
    drop_top : float
        By how much it falls without the patches of greatest attention.
    drop_random, drop_random_sd : float
        By how much it falls without as many random ones: mean and standard deviation.
    draws : int
        Random sets tried.
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
    """Remove the top patches, and random ones to compare with.

    Parameters
    ----------
    ensemble : Ensemble
        Whose mean probability is looked at.
    vectors : ndarray, shape (N, D)
        Features of the slide's patches.
    weights : ndarray, shape (N,)
        Their attention.
    number : int
        Index of the class.
    part : float
        Part of the patches removed; one at least.
    draws, seed : int
        Random sets, and where they come from.

    Returns
    -------
    Occlusion or None
        None for a slide of a single patch.
    """
    count = max(round(part * len(vectors)), 1)
    if count >= len(vectors):
        return None
    whole = float((yield from ensemble.predict(vectors))[number])
    top = np.argsort(weights)[-count:]
    without = yield from ensemble.predict(np.delete(vectors, top, axis=0))
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
    """What a run looks at on a slide.

    Attributes
    ----------
    slide : str
        Its name.
    heatmap : Heatmap
        Of the class that was looked at.
    weights : ndarray of float64, shape (N,)
        Of the patches with features, before scaling; they sum to 1.
    class_name : str
        The class looked at.
    probabilities : dict of str to float
        Of each class.
    effective : float
        Effective number of attended patches.
    top : tuple of int
        Rows of the grid, best first.
    occlusion : Occlusion or None
        None where there are no patches to spare.
    caveat : str
        What the map is, where it is not plain attention.
    files : tuple of Path
        What was written.
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
    files: tuple[Path, ...]


def attention(config: AttentionConfig) -> Job[AttentionResult]:
    """Draw what a run looks at on one slide, and check that it counts.

    Writes ``attention.png``, ``.ome.tif``, ``.geojson``, ``patches.csv``,
    ``attention.json`` and, with the slide's pixels, ``top_patches.png``. Models with an
    attention for each class write a map for each, under its name.

    Raises
    ------
    ConfigError
        If something is not given, or the run has no such class.
    FeatureError
        If there are no features of the slide, or of another encoder.
    """
    run_dir, name, out = _needed(config)
    name, file = _which_slide(config, name)
    features = _read(config, name, file)
    ensemble = load_ensemble(run_dir, config.fold, name, config.compute)
    assert config.features is not None
    ensemble.check(source_of(features.dim, features.encoder), config.features)
    if name in was_trained_on(run_dir, ensemble.folds):
        yield Note(f"{name} was learned from by models that are used here", "warning")
    vectors = features.features[usable(features)]
    if not len(vectors):
        raise ConfigError(f"slide {name} has no patch with features")
    progress = Progress(f"Looking at {name}", 0, None, "patches")
    looked = yield from report_while_running(ensemble.look(vectors), progress)
    number = _class_number(config, ensemble, looked)
    weights = (
        looked.attention if looked.attention.ndim == 1 else looked.attention[number]
    )
    check = occlude(
        ensemble, vectors, weights, number, config.occlude, config.random_draws
    )
    occlusion = yield from report_while_running(check, progress)
    caveat = ensemble.models[0].caveat
    if caveat:
        yield Note(caveat)
    found = _Found(config, name, features, ensemble, looked, number, occlusion, caveat)
    with _opened(config, file) as slide:
        return (yield from found.write(out, slide))


@dataclass(frozen=True, eq=False)
class _Found:
    """All that is known of a slide before it is written."""

    config: AttentionConfig
    name: str
    features: FeatureSet
    ensemble: Ensemble
    looked: AttentionOutput
    number: int
    occlusion: Occlusion | None
    caveat: str

    def write(self, out: Path, slide: Slide | None) -> Job[AttentionResult]:
        """Write everything; the map of the class looked at comes first."""
        classes = self.ensemble.classes
        numbers = [self.number]
        if self.looked.attention.ndim == 2:
            numbers += [n for n in range(len(classes)) if n != self.number]
        maps: list[Heatmap] = []
        files: list[Path] = []
        for number in numbers:
            heatmap = self._map(number)
            maps.append(heatmap)
            stem = "attention"
            if self.looked.attention.ndim == 2:
                stem = f"attention_{_safe(classes[number])}"
            for ending in _MAPS:
                yield Progress("Writing maps", len(files), None, "files")
                files.append(write_heatmap(heatmap, out / f"{stem}.{ending}", slide))
        weights = self._weights(self.number)
        shown = np.full(len(self.features), np.nan)
        shown[usable(self.features)] = weights
        top = top_patches(shown, self.config.top)
        files += self._write_gallery(out, slide, shown, top)
        files += self._write_table(out, shown)
        result = AttentionResult(
            self.name,
            maps[0],
            weights,
            classes[self.number],
            dict(zip(classes, map(float, self.looked.probabilities), strict=True)),
            effective_number(weights),
            tuple(top),
            self.occlusion,
            self.caveat,
            (),
        )
        files.append(self._write_report(out, result))
        return AttentionResult(**{**vars(result), "files": tuple(files)})

    def _weights(self, number: int) -> Floats:
        attention = self.looked.attention
        return attention if attention.ndim == 1 else attention[number]

    def _map(self, number: int) -> Heatmap:
        name = self.ensemble.models[0].shown
        if self.looked.attention.ndim == 2:
            name += f" to {self.ensemble.classes[number]}"
        return attention_map(
            self.features, self._weights(number), self.config.scaling, name
        )

    def _write_gallery(
        self, out: Path, slide: Slide | None, shown: Floats, top: list[int]
    ) -> list[Path]:
        if slide is None:
            return []
        from napari_mcm.core.heatmaps.figures import save_figure

        captions = [
            f"{rank}: patch {row}, {shown[row]:.3g}" for rank, row in enumerate(top, 1)
        ]
        title = f"{self.name}: greatest {self.ensemble.models[0].shown}"
        figure = draw_gallery(slide, self.features.grid, top, captions, title)
        return [save_figure(figure, out / "top_patches.png")]

    def _write_table(self, out: Path, shown: Floats) -> list[Path]:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["patch", "x", "y", "weight"])
        for row in np.flatnonzero(np.isfinite(shown)):
            x, y = self.features.grid.xy[row]
            writer.writerow([int(row), int(x), int(y), f"{shown[row]:.8g}"])
        write_text(out / "patches.csv", text.getvalue())
        return [out / "patches.csv"]

    def _write_report(self, out: Path, result: AttentionResult) -> Path:
        described: dict[str, Any] = {
            "slide": self.name,
            "model": self.ensemble.saved[0].config.model,
            "models": len(self.ensemble.models),
            "folds": self.ensemble.folds,
            "class": result.class_name,
            "probabilities": result.probabilities,
            "scaling": self.config.scaling,
            "patches": len(result.weights),
            "effective_patches": result.effective,
            "top_patches": list(result.top),
            "occlusion": None if self.occlusion is None else asdict(self.occlusion),
            "note": self.caveat,
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
    """Tell a slide's name and its file, where there is one."""
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


def _class_number(
    config: AttentionConfig, ensemble: Ensemble, looked: AttentionOutput
) -> int:
    if config.class_name is None:
        return int(looked.probabilities.argmax())
    if config.class_name not in ensemble.classes:
        raise ConfigError(
            f"there is no class {config.class_name}",
            "--class-name",
            f"The run knows {', '.join(ensemble.classes)}",
        )
    return ensemble.classes.index(config.class_name)


def _safe(name: str) -> str:
    """Make a class's name fit for a file."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
