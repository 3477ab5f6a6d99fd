"""The main workflow end to end: grid, fine-tuning, features, heatmaps and a report."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm import __version__
from napari_mcm.core.encoders import Encoder, load_encoders
from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.errors import ConfigError, GridError, RunError
from napari_mcm.core.features import extract, feature_path
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import GridConfig, PatchGrid, common_mpp, make_grid
from napari_mcm.core.heatmaps import Heatmap, SimilarityIndex, similarity
from napari_mcm.core.heatmaps.figures import (
    draw_grid,
    draw_heatmaps,
    draw_loss,
    save_figure,
)
from napari_mcm.core.mcm.config import FinetuneConfig, OptimiserConfig, PresetName
from napari_mcm.core.mcm.finetune import FinetuneResult, finetune, resume_finetune
from napari_mcm.core.registration import register_sections
from napari_mcm.core.runtime.files import write_json, write_text
from napari_mcm.core.runtime.jobs import Job, Note, format_seconds
from napari_mcm.core.slides import ReadConfig, Slide
from napari_mcm.core.studies.demo_sections import measure_clicks
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.tissue import TissueConfig, TissueMask, find_tissue
from napari_mcm.core.training.run import Run


class DemoConfig(BaseModel):
    """The main workflow on a generated sample, or on given slides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path | None = Field(None, description="Directory for all output.")
    slide: tuple[Path, ...] = Field(
        (),
        description="Slides to use instead of two generated serial sections; without the "
        "click test.",
    )
    fast: bool = Field(False, description="A smaller sample and fewer windows.")
    student: str = Field(
        "offline:efficientnet_lite0", description="Encoder to fine-tune."
    )
    teacher: str = Field(
        "offline:efficientnet_lite2",
        description="Frozen encoder that gives the targets.",
    )
    # What `finetune` does by default; mcm-kd shows the article's method.
    preset: PresetName = Field(
        "recommended", description="Set of options for the fine-tuning, as in finetune."
    )
    at: tuple[float, float] | None = Field(
        None, description="Query point x,y in level-0 pixels of the first slide."
    )
    windows: int = Field(
        240, ge=1, description="Approximate number of context windows to train on."
    )
    seed: int = Field(0, ge=0, description="Random seed.")
    read: ReadConfig = ReadConfig()
    compute: ComputeConfig = ComputeConfig()


@dataclass(frozen=True)
class DemoResult:
    """Result of the demo.

    Attributes
    ----------
    run_dir, report : Path
        The directory with all output, and the HTML report.
    figures : tuple of Path
        Figures.
    metrics : dict
        Losses, rates, and mean similarities.
    seconds : float
        Duration of the whole job.
    """

    run_dir: Path
    report: Path
    figures: tuple[Path, ...]
    metrics: dict[str, Any]
    seconds: float


@dataclass
class _Stopwatch:
    """Seconds by stage, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0) + time.monotonic() - began


def demo(config: DemoConfig) -> Job[DemoResult]:
    """Run the main workflow from end to end and write a report, as a job.

    Parameters
    ----------
    config : DemoConfig
        Output directory, and slides; by default a generated sample.

    Yields
    ------
    Event
        Those of each stage.

    Returns
    -------
    DemoResult
        Report, figures and metrics.

    Raises
    ------
    ConfigError
        If no directory is given.
    GridError
        If the first slide holds no tissue.
    RunError
        If the directory holds a demo with other options.
    """
    if config.out is None:
        raise ConfigError("no directory given", hint="Choose one with --out")
    clock = _Stopwatch()
    began = time.monotonic()
    out = config.out
    with clock("Sample slides"):
        paths = config.slide or (yield from _sample(config, out))
    with config.read.open(paths[0]) as slide:
        with clock("Tissue and grid"):
            tissue, grid = _lay_grid(slide, paths, config)
            yield Note(f"{slide.name}: {len(grid)} patches on tissue")
        with clock("Fine-tuning"):
            result = yield from _learn(_finetuning(config, paths, grid))
        features = {}
        for name, spec in _encoders(config, result).items():
            with clock(f"Features: {name}"):
                (encoder,) = yield from load_encoders([spec], config.compute)
                features[name] = yield from _extract(slide, grid, encoder, out, name)
        clicks = None
        if not config.slide:
            with clock("Click test in the next section"):
                clicks = yield from _click(config, slide, paths[1], result, features)
        with clock("Heatmaps and figures"):
            query = _query(features["before"], config)
            maps = {
                name: similarity(f, query, limits="robust")
                for name, f in features.items()
            }
            figures = _draw(out, slide, tissue, grid, result, maps)
    metrics = _metrics(result, features, maps, query, grid)
    if clicks is not None:
        metrics["click_test"] = clicks
    report = write_report(
        out / "report.html", slide, grid, config, figures, metrics, clock.seconds
    )
    write_json(out / "metrics.json", {**metrics, "stages_s": clock.seconds})
    seconds = time.monotonic() - began
    return DemoResult(out, report, tuple(figures.values()), metrics, seconds)


def _sample(config: DemoConfig, out: Path) -> Job[tuple[Path, ...]]:
    size = 1400 if config.fast else 2400
    # Patches are read at 1 µm per pixel: finer slides would only take longer to draw.
    # As in real tissue, places differ: else only ducts and lobules could be found again.
    sample = SampleConfig(
        slides=2, size=size, mpp=1.0, seed=config.seed, serial=True, varied=True
    )
    return (yield from generate_cohort(out / "sample", sample)).slides


def _grid_config(config: DemoConfig) -> GridConfig:
    """Return the patches: the same 112 µm at half the resolution on the sample, for speed."""
    return GridConfig() if config.slide else GridConfig(patch_size=112, mpp=1.0)


def _click(
    config: DemoConfig,
    slide: Slide,
    path: Path,
    result: FinetuneResult,
    features: Mapping[str, FeatureSet],
) -> Job[dict[str, Any]]:
    """Look for the places of the first section in the second, by all three encoders."""
    out = config.out or Path()
    with config.read.open(path) as second:
        registration = yield from register_sections(slide, second)
        grid = make_grid(
            second, find_tissue(second, TissueConfig()), _grid_config(config)
        )
        pairs = {}
        for name, spec in _encoders(config, result).items():
            (encoder,) = yield from load_encoders([spec], config.compute)
            other = yield from _extract(second, grid, encoder, out, name)
            pairs[name] = (features[name], other)
    return measure_clicks(pairs, registration)


def _lay_grid(
    slide: Slide, paths: tuple[Path, ...], config: DemoConfig
) -> tuple[TissueMask, PatchGrid]:
    others = [config.read.open(path) for path in paths[1:]]
    chosen = _grid_config(config)
    mpp = common_mpp([slide, *others], chosen)
    for other in others:
        other.close()
    tissue = find_tissue(slide, TissueConfig())
    grid = make_grid(slide, tissue, chosen.model_copy(update={"mpp": mpp}))
    if len(grid) < 2:
        raise GridError("holds no tissue", slide.path, "Choose another slide")
    return tissue, grid


def _finetuning(
    config: DemoConfig, paths: tuple[Path, ...], grid: PatchGrid
) -> FinetuneConfig:
    """Choose the epochs so that there are about as many windows as requested."""
    wanted = config.windows // 3 if config.fast else config.windows
    per_epoch = max(len(grid) // 16 * len(paths), 1)
    return FinetuneConfig(
        preset=config.preset,
        slides=tuple(paths),
        student=config.student,
        teacher=config.teacher,
        out=(config.out or Path()) / "finetune",
        read=config.read,
        grid=_grid_config(config).model_copy(update={"mpp": grid.mpp}),
        optimiser=OptimiserConfig(
            epochs=max(round(wanted / per_epoch), 1),
            aligned=True,
            # A short run: twice as many steps from the same windows.
            batch_windows=2,
            # A short run's head needs few windows of its own, and they take as long.
            head_windows=min(max(wanted // 2, 4), 512),
            seed=config.seed,
        ),
        compute=config.compute,
    )


def _learn(config: FinetuneConfig) -> Job[FinetuneResult]:
    """Fine-tune, or resume an interrupted demo with the same options.

    Raises
    ------
    RunError
        If the directory holds a demo with other options.
    """
    run = Run(config.out or Path())
    if run.config_file.exists():
        if run.options(FinetuneConfig) != config:
            raise RunError(
                "holds a demo with other options",
                run.path.parent,
                "Choose another --out",
            )
        return (yield from resume_finetune(run.path))
    return (yield from finetune(config))


def _encoders(config: DemoConfig, result: FinetuneResult) -> dict[str, str | Path]:
    return {
        "before": config.student,
        "after": result.run_dir,
        "teacher": config.teacher,
    }


def _extract(
    slide: Slide, grid: PatchGrid, encoder: Encoder, out: Path, name: str
) -> Job[FeatureSet]:
    path = feature_path(out / "features" / name, slide)
    return (yield from extract(slide, grid, encoder, path))


def _query(features: FeatureSet, config: DemoConfig) -> int:
    """Return the requested patch, or the one whose similarities vary most.

    A patch that is similar to some tissue and dissimilar to other tissue gives an
    informative map. It is chosen by the untouched student, and used for all three
    encoders.

    Raises
    ------
    GridError
        If no patch with features lies at the requested place.
    """
    if config.at is not None:
        index = features.grid.index_at(*config.at)
        if index is None or not features.ok[index]:
            raise GridError(
                f"no patch lies at {config.at[0]:g},{config.at[1]:g}",
                hint="Choose a place on tissue with --at X,Y",
            )
        return index
    candidates = np.flatnonzero(features.ok)[:: max(len(features) // 256, 1)]
    similarities = SimilarityIndex(features)
    spreads = [np.nanstd(similarities.query(int(i))) for i in candidates]
    return int(candidates[int(np.argmax(spreads))])


def _draw(
    out: Path,
    slide: Slide,
    tissue: TissueMask,
    grid: PatchGrid,
    result: FinetuneResult,
    maps: dict[str, Heatmap],
) -> dict[str, Path]:
    metrics = Run.open(result.run_dir).metrics()
    titles = [f"{name} fine-tuning" for name in ("before", "after")] + ["teacher"]
    figures = {
        "grid": draw_grid(slide, tissue, grid),
        "loss": draw_loss(metrics["step"], metrics["loss"]),
        "similarity": draw_heatmaps(list(maps.values()), slide, titles),
    }
    folder = out / "figures"
    return {
        name: save_figure(figure, folder / f"{name}.png")
        for name, figure in figures.items()
    }


def _metrics(
    result: FinetuneResult,
    features: dict[str, FeatureSet],
    maps: dict[str, Heatmap],
    query: int,
    grid: PatchGrid,
) -> dict[str, Any]:
    return {
        "loss_first": result.loss_first,
        "loss_last": result.loss_last,
        "windows": result.windows,
        "steps": result.steps,
        "finetune_patches_per_s": result.patches_per_s,
        "patches": len(grid),
        "query_index": query,
        "query_xy": [int(n) for n in grid.xy[query]],
        "similarity_mean": {n: float(np.nanmean(m.values)) for n, m in maps.items()},
        "similarity_std": {n: float(np.nanstd(m.values)) for n, m in maps.items()},
        "feature_dim": {name: f.dim for name, f in features.items()},
    }


def write_report(
    path: Path,
    slide: Slide,
    grid: PatchGrid,
    config: DemoConfig,
    figures: Mapping[str, Path],
    metrics: Mapping[str, Any],
    stages: Mapping[str, float],
) -> Path:
    """Write the report as one self-contained HTML file.

    Parameters
    ----------
    path : Path
        File to write.
    slide : Slide
        The slide, open.
    grid : PatchGrid
        Its patches.
    config : DemoConfig
        Options of the demo.
    figures : mapping of str to Path
        PNG files: ``grid``, ``loss``, ``similarity``.
    metrics : mapping
        Metrics of the demo.
    stages : mapping of str to float
        Seconds by stage.

    Returns
    -------
    Path
        The file.
    """
    template = resources.files("napari_mcm.core.studies") / "report.html.jinja"
    # File names and options come from outside: everything is escaped.
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template.read_text(encoding="utf-8")).render(
        version=__version__,
        slide=slide,
        grid=grid,
        config=config,
        metrics=metrics,
        images={name: _inline(file) for name, file in figures.items()},
        stages={
            name: format_seconds(s) if s >= 1 else f"{s:.1f} s"
            for name, s in stages.items()
        },
        total=format_seconds(sum(stages.values())),
        machine=f"{os.cpu_count()} CPU cores, torch {torch.__version__} "
        f"({torch.get_num_threads()} threads)",
    )
    write_text(path, page)
    return path


def _inline(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
