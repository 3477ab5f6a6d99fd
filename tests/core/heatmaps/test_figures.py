"""Figures say what they show; how they look is for eyes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps import similarity
from napari_mcm.core.heatmaps.figures import (
    draw_grid,
    draw_heatmap,
    draw_heatmaps,
    draw_loss,
)
from napari_mcm.core.heatmaps.panels import View, round_length
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import TissueMask


def _texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_a_heatmap_has_tissue_query_colour_bar_and_scale_bar(
    features: FeatureSet, slide: Slide
) -> None:
    heatmap = similarity(features, 2)
    tissue, values = draw_heatmap(heatmap, slide).axes[:2]
    assert tissue.get_title(loc="left") == "pink"
    assert _texts(tissue) == ["query", "10 µm"]
    assert _texts(values) == ["query"]
    (box,) = [patch for patch in values.patches if patch.get_gid() == "query"]
    assert box.get_xy() == (64, 32)
    (bar,) = values.child_axes
    assert bar.get_xlabel() == heatmap.title


def test_the_scale_bar_is_as_long_as_it_says(
    features: FeatureSet, slide: Slide
) -> None:
    (ax,) = draw_heatmap(similarity(features, 2)).axes
    (bar,) = [line for line in ax.lines if line.get_gid() == "scale-bar"]
    assert np.ptp(bar.get_xdata()) * slide.mpp[0] == pytest.approx(10)


def test_values_lie_over_their_patches(features: FeatureSet) -> None:
    (ax,) = draw_heatmap(similarity(features, 0)).axes
    (picture,) = ax.images
    assert picture.get_extent() == [0, 192, 128, 0]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # y runs down, as on the slide
    array = picture.get_array()
    assert array.mask[0].all()
    assert array.mask[2, 1]


def test_several_heatmaps_stand_side_by_side(
    features: FeatureSet, slide: Slide
) -> None:
    maps = [similarity(features, 0), similarity(features, 0, limits="robust")]
    axes = draw_heatmaps(maps, slide, ["before", "after"]).axes
    panels = [ax for ax in axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in panels] == ["pink", "before", "after"]


def test_the_grid_is_drawn_over_the_whole_slide(
    slide: Slide, tissue: TissueMask, grid: PatchGrid
) -> None:
    figure = draw_grid(slide, tissue, grid)
    ax = figure.axes[0]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["tissue: 75.0% of the slide", "patch: 32 px at 0.5 µm/px = 16 µm"]
    assert ax.get_title(loc="left") == "pink: 18 patches"
    figure.canvas.draw()


def test_a_slide_without_tissue_can_be_drawn(slide: Slide, grid: PatchGrid) -> None:
    nothing = TissueMask(np.zeros((16, 24), bool), (8.0, 8.0))
    empty = replace(grid, xy=grid.xy[:0], lattice=grid.lattice[:0])
    draw_grid(slide, nothing, empty).canvas.draw()
    assert View.of_grid(empty).width == 192


def test_a_loss_curve_shows_each_step_and_their_mean() -> None:
    ax = draw_loss(range(40), np.linspace(1, 0.5, 40), "l1 loss").axes[0]
    each, mean = ax.lines
    assert len(each.get_xdata()) == len(mean.get_xdata()) == 40
    assert mean.get_ydata()[-1] > each.get_ydata()[-1]
    assert ax.get_ylabel() == "l1 loss"
    draw_loss([], []).canvas.draw()


@pytest.mark.parametrize(
    ("microns", "length"), [(199, 100), (200, 200), (499, 200), (500, 500), (7.3, 5)]
)
def test_scale_bars_are_round(microns: float, length: float) -> None:
    assert round_length(microns) == length


def test_no_window_system_is_touched() -> None:
    code = (
        "import sys, napari_mcm.core.heatmaps as h; "
        "assert 'matplotlib' not in sys.modules; "
        "import napari_mcm.core.heatmaps.figures; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
