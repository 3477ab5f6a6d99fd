"""Make the pictures of the viewer by driving the real program.

    scripts/with_display.sh .venv/bin/python docs/make_pictures.py [--only slide]
        [--slide FILE] [--at X Y] [--out docs/pictures]
    scripts/with_display.sh .venv/bin/python docs/make_pictures.py --only mil
        --cohort cohort.csv --features FOLDER --run FOLDER
    scripts/with_display.sh .venv/bin/python docs/make_pictures.py --only finetune|mae
        --run FOLDER

Without a slide the generated one is taken. Those of slide classification need a cohort
with paths of its slides, and train into a new run folder. The widget's own buttons
are pressed and the canvas is clicked; nothing is drawn in afterwards.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from PIL import Image
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget

from napari_mcm.viewer.jobs import JobState
from napari_mcm.viewer.session import session_of
from napari_mcm.viewer.widgets.encoder_slot import EncoderSlot
from napari_mcm.viewer.widgets.features import FeaturesWidget
from napari_mcm.viewer.widgets.finetune import FinetuneWidget
from napari_mcm.viewer.widgets.mae import MaeWidget
from napari_mcm.viewer.widgets.mil import MilWidget
from napari_mcm.viewer.widgets.similarity import SimilarityWidget
from napari_mcm.viewer.widgets.slide import SlideWidget

PLUGIN = "napari-mcm"
SMALL_MAE = {
    "model.model": "tiny",
    "model.image_size": 112,
    "model.vit_patch": 16,
    "recipe.batch_size": 32,
    "recipe.steps": 100,
    "recipe.base_lr": 1.5e-3,
    "checkpoint_seconds": 5,
}
"""A pre-training of a minute or two."""


def wait(until: Callable[[], bool], seconds: float = 1800) -> None:
    """Let the program run in its own event loop until something has happened."""
    end = time.monotonic() + seconds
    loop, poll = QEventLoop(), QTimer()
    poll.timeout.connect(lambda: (until() or time.monotonic() > end) and loop.quit())
    poll.start(10)
    QApplication.processEvents()
    if not until():
        loop.exec()
    poll.stop()
    if not until():
        raise SystemExit(f"gave up after {seconds:.0f} s")


def settle(seconds: float = 1.0) -> None:
    """Let the program paint."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


class Studio:
    """A viewer with the plugin, ready to be photographed."""

    def __init__(self, out: Path, size: tuple[int, int]) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*size)
        self.session = session_of(self.viewer)

    def open(self, slide: Path | None) -> None:
        """Open a slide, or the generated one."""
        if slide is None:
            self.viewer.open_sample(PLUGIN, "generated_slide")
        else:
            self.viewer.open(slide, plugin=PLUGIN)
        settle()

    def dock(self, name: str) -> QWidget:
        """Open one of the plugin's widgets."""
        _, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, name)
        settle()
        return widget

    def finish(self) -> None:
        """Wait for the running job, which must end well."""
        status = self.session.jobs.status
        wait(lambda: not status.busy)
        if status.state is not JobState.DONE:
            raise SystemExit(status.details)
        settle()

    def take(self, name: str) -> None:
        """Save a picture of the whole window."""
        settle()
        path = self.out / f"{name}.png"
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        picture = Image.fromarray(pixels[..., :3])
        # A third of the size, with colours as good as the same.
        picture.quantize(256, kmeans=2).save(path, optimize=True)
        print(path)

    def compute(self, slot: EncoderSlot, encoder: str, shot: str = "") -> None:
        """Press a slot's button and wait; take a picture halfway if asked for."""
        status = self.session.jobs.status
        slot.encoder.setCurrentText(encoder)
        slot.compute.click()
        if shot:
            wait(lambda: not status.busy or self._halfway())
            self.take(shot)
        self.finish()

    def _halfway(self) -> bool:
        progress = self.session.jobs.status.progress
        if progress is None or not progress.total or not progress.rate:
            return False
        return progress.done > progress.total / 3

    def click(
        self,
        x: float,
        y: float,
        keys: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier,
    ) -> None:
        """Click on a point of the slide, given in level-0 pixels."""
        camera = self.viewer.scene.camera
        slide = self.session.slide
        assert slide is not None
        native = self.viewer.window._qt_viewer.canvas.native
        middle = np.array([native.height(), native.width()]) / 2
        world = np.asarray(slide.data_to_world((y - 0.5, x - 0.5)))
        row, column = (world - camera.center[-2:]) * camera.zoom + middle
        at = QPoint(round(column), round(row))
        QTest.mouseClick(native, Qt.MouseButton.LeftButton, keys, at)
        settle()

    def press(self, key: Qt.Key) -> None:
        """Press a key on the canvas."""
        QTest.keyClick(self.viewer.window._qt_viewer.canvas.native, key)
        settle()

    def look_at(self, x: float, y: float, zoom: float) -> None:
        """Zoom to a point of the slide."""
        slide, camera = self.session.slide, self.viewer.scene.camera
        assert slide is not None
        camera.center = slide.data_to_world((y, x))
        camera.zoom *= zoom


def picture_slide(studio: Studio) -> None:
    """Find tissue, show the grid, and correct the mask by a stroke of the brush."""
    widget = studio.dock("Slide")
    assert isinstance(widget, SlideWidget)
    widget.tissue.search.click()
    studio.finish()
    widget.grid.show_grid.click()
    wait(lambda: widget.grid.preview.grid is not None)
    studio.take("slide")
    widget.tissue.correct.click()
    studio.viewer.theme = "light"
    studio.take("slide-light")
    studio.viewer.theme = "dark"


def picture_similarity(studio: Studio, options: argparse.Namespace) -> None:
    """Compute features twice, click, and compare."""
    widget = studio.dock("Similarity")
    assert isinstance(widget, SimilarityWidget)
    widget.options.patch_size.setValue(options.patch_size)
    widget.options.folder.setText(options.features or "")
    studio.take("viewer-open")
    studio.compute(widget.first, options.encoder, shot="viewer-computing")
    facts = studio.session.facts
    assert facts is not None
    x, y = options.at or (facts.size[0] / 2, facts.size[1] / 2)
    studio.click(x, y)
    studio.take("viewer-dark")
    studio.viewer.theme = "light"
    studio.take("viewer-light")
    studio.viewer.theme = "dark"
    studio.compute(widget.second, options.second)
    studio.take("viewer-compare")
    picture_query(studio, widget)
    studio.look_at(x, y, 4)
    studio.take("viewer-zoomed")


def picture_query(studio: Studio, widget: SimilarityWidget) -> None:
    """Add examples, outline what is alike, and draw the difference."""
    shown = studio.session.queries.shown_map()
    assert shown is not None
    heatmap, modifiers = shown[1], Qt.KeyboardModifier
    for patch, keys in (
        (int(heatmap.best(20)[-1]), modifiers.ShiftModifier),
        (int(np.nanargmin(heatmap.values)), modifiers.ControlModifier),
    ):
        x, y = heatmap.grid.centres[patch]
        studio.click(float(x), float(y), keys)
    studio.press(Qt.Key.Key_T)
    wait(lambda: bool(studio.session.gallery.tops))
    area = widget.findChildren(QScrollArea)[0]
    area.ensureWidgetVisible(widget.elsewhere)
    studio.take("similarity")
    studio.press(Qt.Key.Key_D)
    studio.take("similarity-difference")
    studio.press(Qt.Key.Key_D)


def picture_finetune(studio: Studio, options: argparse.Namespace) -> None:
    """Preview windows, fine-tune into a new run folder, and compare."""
    features = studio.dock("Features")
    assert isinstance(features, FeaturesWidget)
    studio.take("features")
    studio.viewer.window.remove_dock_widget(features)
    widget = studio.dock("Fine-tune")
    assert isinstance(widget, FinetuneWidget)
    status = studio.session.jobs.status
    widget.form.student.setCurrentText(options.encoder)
    widget.form.teacher.setCurrentText(options.second)
    widget.form.patches.patch_size.setValue(options.patch_size)
    widget.start.out.put(options.run)
    wait(widget.start.start.isEnabled)
    studio.take("finetune-setup")
    widget.tabs.setCurrentIndex(1)
    widget.windows.show_windows.setChecked(True)
    wait(lambda: widget.windows.preview.plan is not None)
    studio.take("finetune-windows")
    widget.windows.another.click()
    wait(lambda: widget.windows.preview.shown is not None)
    studio.take("finetune-window")
    widget.windows.show_windows.setChecked(False)
    studio.viewer.reset_view()
    widget.start.start.click()
    wait(lambda: not status.busy or len(widget.desk.series.get("step", [])) > 3)
    studio.take("finetune-running")
    studio.finish()
    wait(lambda: widget.desk.run is not None)
    facts = studio.session.facts
    assert facts is not None
    widget.results.compare.click()
    studio.finish()
    studio.click(*(options.at or (facts.size[0] / 2, facts.size[1] / 2)))
    studio.take("finetune-run")
    studio.viewer.theme = "light"
    studio.take("finetune-run-light")
    studio.viewer.theme = "dark"


def picture_mil(studio: Studio, options: argparse.Namespace) -> None:
    """Train on a cohort, show the results, and open a slide with its attention."""
    widget = studio.dock("MIL")
    assert isinstance(widget, MilWidget)
    status = studio.session.jobs.status
    fields = (widget.train.cohort, widget.train.features, widget.train.out)
    given = (options.cohort, options.features, options.run)
    for field, path in zip(fields, given, strict=True):
        field.put(path)
    wait(widget.train.train.isEnabled)
    widget.train.train.click()
    wait(lambda: not status.busy or (2, 0) in widget.desk.curves)
    studio.take("mil-training")
    studio.finish()
    wait(lambda: widget.desk.run is not None)
    table = widget.results.table
    table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    table.selectRow(0)
    studio.take("mil-results")
    widget.results.open.click()
    wait(lambda: bool(widget.attention.tops))
    studio.take("mil-attention")
    studio.viewer.theme = "light"
    widget.attention.go_to(widget.attention.tops[0])
    studio.take("mil-attention-light")
    studio.viewer.theme = "dark"


def picture_mae(studio: Studio, options: argparse.Namespace) -> None:
    """Pre-train a small ViT on the slide's tissue, and ask it for a patch."""
    widget = studio.dock("MAE & cells")
    assert isinstance(widget, MaeWidget)
    status = studio.session.jobs.status
    widget.form.with_slides.setChecked(True)
    widget.form.patches.patch_size.setValue(options.patch_size)
    for name, value in SMALL_MAE.items():
        widget.form.options.put(name, value)
    widget.start.out.put(options.run)
    wait(widget.start.start.isEnabled)
    widget.start.start.click()
    enough = SMALL_MAE["recipe.steps"] // 2
    wait(lambda: not status.busy or len(widget.desk.series.get("step", [])) > enough)
    studio.take("mae-training")
    studio.finish()
    wait(lambda: widget.desk.run is not None)
    widget.tabs.setCurrentIndex(1)
    settle()
    widget.reconstruct.way.setCurrentIndex(1)
    facts = studio.session.facts
    assert facts is not None
    at = options.at or (facts.size[0] / 2, facts.size[1] / 2)
    studio.look_at(*at, 8)
    settle()
    studio.click(*at)
    wait(lambda: not status.busy)
    settle(3)
    studio.take("mae-reconstruct")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = ("slide", "similarity", "finetune", "mil", "mae")
    parser.add_argument("--only", choices=kinds)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--encoder", default="offline:efficientnet_lite0")
    parser.add_argument("--second", default="offline:efficientnet_lite2")
    parser.add_argument("--at", type=float, nargs=2, metavar=("X", "Y"))
    parser.add_argument("--patch-size", type=int, default=224)
    parser.add_argument("--features", help="folder for feature files")
    parser.add_argument("--cohort", help="mil: table of slides, with their paths")
    parser.add_argument("--run", help="mil, finetune, mae: folder of a new run")
    parser.add_argument("--size", type=int, nargs=2, default=(1500, 950))
    options = parser.parse_args()

    studio = Studio(options.out, tuple(options.size))
    if options.only == "mil":
        picture_mil(studio, options)
    else:
        studio.open(options.slide)
    if options.only in (None, "slide"):
        picture_slide(studio)
    if options.only in (None, "similarity"):
        picture_similarity(studio, options)
    if options.only == "finetune":
        picture_finetune(studio, options)
    if options.only == "mae":
        picture_mae(studio, options)
    studio.viewer.close()


if __name__ == "__main__":
    main()
