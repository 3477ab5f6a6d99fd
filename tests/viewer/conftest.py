"""A small slide in a real viewer, with features that are quick to make."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.utils._test_utils import read_only_mouse_event
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)
from npe2 import PluginManager, PluginManifest
from qtpy.QtWidgets import QAbstractButton, QApplication, QWidget
from superqt import QCollapsible

from napari_mcm.core.features.feature_set import (
    PATCH_ALONE,
    FeatureSet,
    NeighbourhoodConfig,
)
from napari_mcm.core.grid import GridConfig, make_grid
from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.core.heatmaps.config import DEFAULT_RADIUS
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.app.jobs import block_triton
from napari_mcm.viewer.qt.dock import DockedWidget, ScrollColumn
from napari_mcm.viewer.qt.option_form import OptionForm
from napari_mcm.viewer.qt.summary_section import SummarySection
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from napari_mcm.viewer.slide.widget import SlideWidget
from tests.core.conftest import stained_image

MPP = 0.5
MANIFEST = Path(__file__).parents[2] / "src" / "napari_mcm" / "napari.yaml"
Click = Callable[..., None]


def write_slide(path: Path, mpp: float | None = MPP, blank: bool = False) -> Path:
    """Write a slide of 1,200 × 1,000 px, with tissue in its middle or without."""
    options: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb"}
    if mpp is not None:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": 3}
    image = np.full((1000, 1200, 3), 243, np.uint8)
    if not blank:
        image = stained_image(1200, 1000)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, subifds=1, **options)
        tiff.write(image[::2, ::2], subfiletype=1, tile=(256, 256), photometric="rgb")
    return path


def write_pair(folder: Path) -> list[Path]:
    """Write two slides of unlike resolution, and one that states none."""
    paths = [folder / f"{name}.tif" for name in "abc"]
    for path, mpp in zip(paths, (MPP, 0.8 * MPP, None), strict=True):
        write_slide(path, mpp)
    return paths


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    """Import what the viewer imports later, and spare the garbage collector that.

    Each test collects garbage several times, to see that nothing is held.
    """
    for name in (
        "matplotlib.backends.backend_qtagg",
        "napari._qt.qt_main_window",
        "napari._vispy.layers.image",
        "sklearn.metrics",
        "timm",
        "napari_mcm.core.mae.pretraining",
        "napari_mcm.core.mcm.finetune",
        "napari_mcm.core.mil.train",
    ):
        import_module(name)
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is remembered out of the user's own settings."""
    file = tmp_path / "settings" / "resolutions.json"
    monkeypatch.setattr("napari_mcm.viewer.app.persistence._file", lambda: file)
    return file


@pytest.fixture
def slide_path(tmp_path: Path) -> Path:
    """A slide at 0.5 µm per pixel."""
    return write_slide(tmp_path / "slide.tif")


def features_of(
    path: Path, patch_size: int = 50, dim: int = 16, mpp: float = MPP
) -> LoadedFeatures:
    """Random features of a slide, as if an encoder had made them."""
    with open_slide(path, mpp) as slide:
        config = GridConfig(patch_size=patch_size)
        grid = make_grid(slide, find_tissue(slide), config)
    rng = np.random.default_rng(patch_size)
    vectors = rng.standard_normal((len(grid), dim), np.float32)
    status = np.zeros(len(grid), np.uint8)
    features = FeatureSet(vectors, grid, status, {"spec": f"random {patch_size}"})
    loaded = LoadedFeatures(
        f"random {patch_size}", SimilarityIndex(features), Path("none")
    )
    run(loaded.prepare(NeighbourhoodConfig(radius=DEFAULT_RADIUS)))
    return loaded


@pytest.fixture
def loaded(slide_path: Path) -> LoadedFeatures:
    """Features of 25 µm patches of the slide."""
    return features_of(slide_path)


@pytest.fixture
def plugin(npe2pm: PluginManager) -> Iterator[PluginManager]:
    """The plugin manager with this plugin, and no other."""
    with npe2pm.tmp_plugin(manifest=PluginManifest.from_file(MANIFEST)):
        yield npe2pm


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any], plugin: PluginManager) -> Any:
    """An empty viewer that knows the plugin."""
    made = make_napari_viewer()
    # Tests of the engine that come later in this process import torch, too.
    block_triton()
    return made


@pytest.fixture
def widget(viewer: Any, slide_path: Path) -> Iterator[SimilarityWidget]:
    """The widget, docked in a viewer that shows the slide."""
    viewer.open(slide_path, plugin="napari-mcm")
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    # Most tests compare with cosines of patches; those of context choose it themselves.
    context_of(docked.session).queries.use_neighbourhood(PATCH_ALONE)
    yield docked
    finish(docked)


@pytest.fixture
def slide_widget(viewer: Any, slide_path: Path) -> Iterator[SlideWidget]:
    """The widget *Slide*, docked in a viewer that shows the slide."""
    viewer.open(slide_path, plugin="napari-mcm")
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Slide")
    yield docked
    finish(docked)


def wait_until(happened: Callable[[], Any], seconds: float = 20) -> None:
    """Let the program run until something has happened."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        QApplication.processEvents()
        time.sleep(0.005)


def unfold(widget: QWidget) -> None:
    """Unfold all forms; those in sight are made, too, in a window that is not shown."""
    for section in widget.findChildren(SummarySection):
        section.set_open(True)
    for part in widget.findChildren(QCollapsible):
        part.expand(animate=False)
    for form in widget.findChildren(OptionForm):
        form.make_fields()
    QApplication.processEvents()


def inner_of(docked: DockedWidget) -> QWidget:
    """Give the widget that scrolls in a dock."""
    inner = docked.findChild(ScrollColumn).widget()
    assert inner is not None
    return inner


def plain(button: QAbstractButton) -> str:
    """Give a button's text, whichever of its letters is underlined."""
    return str(button.text().replace("&", ""))


def finish(widget: DockedWidget) -> None:
    """Wait for the worker and the disk, so that they do not outlive their test."""
    widget.session.jobs.close()
    widget.session.disk.wait()
    wait_until(lambda: not widget.session.jobs.status.busy)


@pytest.fixture
def click(viewer: Any) -> Click:
    """Give a function that clicks at a world position, or drags from it."""
    return mouse_of(viewer)


def mouse_of(viewer: Any) -> Click:
    """Give the function of one of several viewers."""

    def press(world: tuple[float, float], moved_px: float = 0, **changes: Any) -> None:
        def event(kind: str, pos: tuple[float, float]) -> Any:
            fields = {"button": 1, "modifiers": [], "is_dragging": False} | changes
            return read_only_mouse_event(
                type=kind, pos=np.asarray(pos), position=world, **fields
            )

        mouse_press_callbacks(viewer, event("mouse_press", (100, 100)))
        moved = (100 + moved_px, 100)
        if moved_px:
            mouse_move_callbacks(viewer, event("mouse_move", moved))
        mouse_release_callbacks(viewer, event("mouse_release", moved))
        # Words in the dock follow the map.
        QApplication.processEvents()

    return press
