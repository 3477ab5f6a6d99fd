"""The demo's report: one self-contained page."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import torch

from napari_mcm import __version__
from napari_mcm.core.files import write_text
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.jobs import format_seconds
from napari_mcm.core.slides import Slide

if TYPE_CHECKING:
    from napari_mcm.core.studies.demo import DemoConfig


def write_report(
    path: Path,
    slide: Slide,
    grid: PatchGrid,
    config: DemoConfig,
    figures: Mapping[str, Path],
    metrics: Mapping[str, Any],
    stages: Mapping[str, float],
) -> Path:
    """Write the report as one HTML file that needs no other.

    Parameters
    ----------
    path : Path
        The page.
    slide, grid
        What was looked at.
    config : DemoConfig
        How.
    figures : mapping of str to Path
        PNG files: ``grid``, ``loss``, ``similarity``.
    metrics : mapping
        Figures of the job.
    stages : mapping of str to float
        Seconds by stage.
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
