"""What is painted by hand is seen in the dark theme and in the light one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor
from qtpy.QtCore import QPoint, QRect
from qtpy.QtWidgets import QApplication, QVBoxLayout, QWidget

from napari_mcm.viewer.qt.color_strip import Legend
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from napari_mcm.viewer.training.chart import _ON_DARK, _ON_LIGHT, Chart
from napari_mcm.viewer.training.run_images import Picture, read_plot
from tests.viewer.conftest import Click
from tests.viewer.similarity.test_maps import centre_um, ready

__all__ = ["ready"]

COLOURS = {"dark": _ON_DARK, "light": _ON_LIGHT}


def seen(part: QWidget, tmp_path: Path) -> Any:
    """The pixels of a part where it lies in its window, as (height, width, 3)."""
    QApplication.processEvents()
    place = QRect(part.mapTo(part.window(), QPoint(0, 0)), part.size())
    part.window().grab(place).save(str(tmp_path / "part.png"))
    return np.asarray(Image.open(tmp_path / "part.png").convert("RGB")).astype(int)


def ground(pixels: Any) -> Any:
    """The most common colour."""
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return colours[counts.argmax()]


def stands_out(pixels: Any) -> float:
    """How far the brightness of what is drawn is from what it is drawn on, at most."""
    return float(np.abs(pixels.mean(axis=-1) - ground(pixels).mean()).max())


def holds(pixels: Any, colour: str) -> bool:
    """Whether a colour is among them, but for what smooth edges do to it."""
    wanted = ImageColor.getrgb(colour)
    return bool((np.abs(pixels - wanted).max(axis=-1) < 12).any())


def test_curves_and_the_legend_follow_the_theme(
    ready: SimilarityWidget, click: Click, viewer: Any, tmp_path: Path
) -> None:
    chart = Chart()
    steps = list(range(1, 9))
    chart.show_lines({"loss": (steps, [1.0] * 8), "cosine": (steps, [0.0] * 8)})
    click(centre_um(ready, 5))
    legend = Legend()
    legend.show_heatmap(context_of(ready.session).query.maps["first"])
    dock = QWidget()
    QVBoxLayout(dock).addWidget(chart)
    dock.layout().addWidget(legend)
    viewer.window.add_dock_widget(dock, name="painted", area="bottom")
    viewer.window._qt_window.show()
    strips = []
    for theme in ("dark", "light", "dark"):
        viewer.theme = theme
        curves, ends = seen(chart, tmp_path), seen(legend.high, tmp_path)
        for pixels in (curves, ends):
            assert (ground(pixels).mean() > 128) == (theme == "light")
            assert stands_out(pixels) > 100
        for other, colours in COLOURS.items():
            for colour in colours[:2]:
                assert holds(curves, colour) == (other == theme), (theme, colour)
        strip = seen(legend.strip, tmp_path)
        high, width, _ = strip.shape
        strips.append(strip[high // 2, [1, width // 4, width // 2, width - 2]])
    # Its colours are the map's, which no theme changes.
    assert np.ptp(strips[0], axis=0).max() > 100
    np.testing.assert_allclose(strips[1:], strips[:1] * 2, atol=12)


def test_a_plot_of_a_run_follows_the_theme(viewer: Any, tmp_path: Path) -> None:
    plot = np.full((180, 240, 3), 255, np.uint8)
    plot[60:120, 60:180] = (0, 114, 178)
    plot[135:150] = 0
    Image.fromarray(plot).save(tmp_path / "plot.png")
    picture = Picture()
    picture.show_plot(read_plot(tmp_path / "plot.png"))
    picture.setMinimumSize(240, 180)
    dock = QWidget()
    QVBoxLayout(dock).addWidget(picture)
    viewer.window.add_dock_widget(dock, name="Plot", area="right")
    viewer.window._qt_window.show()
    # Turned round, 178 is lightest; black becomes the dark theme's (38, 41, 48).
    blue = {"light": "#0072B2", "dark": "#68C9FF"}
    # The other theme is there as soon as it is chosen.
    for theme in ("dark", "light", "dark"):
        viewer.theme = theme
        found = seen(picture, tmp_path)
        assert holds(found, blue[theme])
        assert holds(found, "#000000") == (theme == "light")
        assert stands_out(found) > 100
