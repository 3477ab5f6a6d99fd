"""A user who does anything, in any order: nothing may break, nothing may be left behind.

    scripts/with_display.sh .venv/bin/python -m tests.viewer.random_user --seeds 20

prints, for each seed, what went wrong, threads that are left, and the memory in use.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Read once, as napari is imported: the user's own settings stay as they are.
    _settings = tempfile.TemporaryDirectory()
    os.environ["NAPARI_CONFIG"] = f"{_settings.name}/settings.yaml"
    os.environ["XDG_CONFIG_HOME"] = f"{_settings.name}/config"

import numpy as np
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDockWidget, QTabWidget

from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.app.session import session_of
from napari_mcm.viewer.finetune.widget import FinetuneWidget
from napari_mcm.viewer.labelling.context import labelling_of
from napari_mcm.viewer.labelling.widget import ClassesWidget
from napari_mcm.viewer.mae.widget import MaeWidget
from napari_mcm.viewer.qt import close_guard as closing
from napari_mcm.viewer.qt.slide_selector import SlideSelector
from napari_mcm.viewer.registration.widget import SectionsWidget
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from napari_mcm.viewer.slide.widget import SlideWidget
from tests.viewer.conftest import features_of
from tests.viewer.seen import maps_seen, problems, settle

PLUGIN = "napari-mcm"
WIDGETS = (
    "Slide",
    "Features",
    "Similarity",
    "Classes",
    "Classes",
    "Atlas",
    "Sections",
    "Fine-tune",
    "MIL",
    "MAE & cells",
)
KEYS = "TDNGE"
TINY = "random:test_resnet"
SMALL = {
    "model.model": "tiny",
    "model.image_size": 32,
    "model.vit_patch": 8,
    "model.depth": 2,
    "masking.decoder_width": 32,
    "masking.decoder_depth": 1,
    "masking.decoder_heads": 2,
    "recipe.batch_size": 4,
    "recipe.steps": 50,
    "workers": 0,
}
"""A pre-training of a second."""


class RandomUser:
    """Drives a viewer by real events and buttons.

    Parameters
    ----------
    viewer : napari.Viewer
        With the plugin.
    slides : sequence of Path
        That may be opened.
    folder : Path
        For features and runs.
    seed : int
        The same seed does the same things; jobs take their own time.
    """

    def __init__(
        self, viewer: Any, slides: list[Path], folder: Path, seed: int
    ) -> None:
        self.viewer, self.slides, self.folder = viewer, slides, folder
        self.rng = np.random.default_rng(seed)
        self.session = session_of(viewer)
        # One pixel for each patch: what is seen is compared with computed values.
        self.session.layers.look.use_smooth(False)
        self.did: list[str] = []
        self.runs = 0
        self._features: dict[tuple[str, int], LoadedFeatures] = {}
        self.actions: tuple[Callable[[], None], ...] = (
            self.open_slide,
            self.dock,
            self.dock,
            self.close_dock,
            self.click,
            self.click,
            self.click,
            self.press_key,
            self.zoom,
            self.extract,
            self.find_tissue,
            self.fine_tune,
            self.pre_train,
            self.turn_page,
            self.cancel,
            self.delete_layer,
            self.rename_layer,
            self.hide_layer,
            self.switch_theme,
            self.float_dock,
            self.wait,
            self.choose_slide,
            self.choose_slide,
            self.give_features,
            self.give_features,
            self.select_layer,
            self.hide_layer,
            self.move_threshold,
            self.move_context,
            self.undo,
            self.redo,
            self.side_by_side,
            self.compare,
            self.click_tissue,
            self.click_tissue,
            self.click_tissue,
            self.hover,
            self.label_tissue,
            self.label_tissue,
            self.label_tissue,
            self.add_class,
            self.change_class,
            self.lasso,
            self.label_next,
            self.show_classes,
            self.undo_by_key,
            self.register,
            self.link_sections,
            self.carry_over,
        )
        self.seen: list[str] = []
        self.maps = 0

    def act(self, count: int, look: bool = True) -> None:
        """Do so many things, and look after each whether what is seen was asked for."""
        for _ in range(count):
            action = self.actions[self.rng.integers(len(self.actions))]
            # Without a slide or a dock there is little to do.
            if not self.session.layers.slides():
                action = self.open_slide
            elif not self._widgets(SimilarityWidget) and self.rng.integers(2):
                action = self.similarity
            self.did.append(action.__name__)
            action()
            QApplication.processEvents()
            # As the event loop does: a closed dock is gone before the user's next move.
            QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            if look and not self.seen:
                settle(self.session)
                self.maps += maps_seen(self.session)
                for problem in problems(self.session):
                    self.seen.append(
                        f"after {len(self.did)} {action.__name__}: {problem}"
                    )

    def finish(self) -> None:
        """Stop the job and wait until all is quiet."""
        self.session.jobs.cancel()
        _wait_until(lambda: not self.session.jobs.status.busy)
        self.session.disk.wait()
        QApplication.processEvents()

    def open_slide(self) -> None:
        """Open one of the slides, perhaps a second time."""
        if len(self.viewer.layers) < 12:
            self.viewer.open(self._one_of(self.slides), plugin=PLUGIN)

    def dock(self) -> None:
        """Dock a widget, perhaps a second one of its kind."""
        if len(self._docks()) < 4:
            name = WIDGETS[self.rng.integers(len(WIDGETS))]
            self.viewer.window.add_plugin_dock_widget(PLUGIN, name)

    def similarity(self) -> None:
        """Dock the widget that most of this is about."""
        self.viewer.window.add_plugin_dock_widget(PLUGIN, "Similarity")

    def close_dock(self) -> None:
        """Close a dock by its button's own method."""
        if docks := self._docks():
            self._one_of(docks).destroyOnClose()

    def float_dock(self) -> None:
        """Float a dock, or put it back."""
        if docks := self._docks():
            dock = self._one_of(docks)
            dock.setFloating(not dock.isFloating())

    def click(self) -> None:
        """Click anywhere on the canvas, with any modifier."""
        modifiers = Qt.KeyboardModifier
        keys = (
            modifiers.NoModifier,
            modifiers.NoModifier,
            modifiers.ShiftModifier,
            modifiers.ControlModifier,
        )[self.rng.integers(4)]
        native = self._canvas()
        at = QPoint(
            int(self.rng.integers(native.width())),
            int(self.rng.integers(native.height())),
        )
        QTest.mouseClick(native, Qt.MouseButton.LeftButton, keys, at)

    def press_key(self) -> None:
        """Press one of the plugin's keys on the canvas."""
        keys = [*KEYS, Qt.Key.Key_Escape, Qt.Key.Key_Backspace]
        QTest.keyClick(self._canvas(), keys[self.rng.integers(len(keys))])

    def zoom(self) -> None:
        """Zoom in or out."""
        self.viewer.scene.camera.zoom *= float(self.rng.choice([0.5, 2.0]))

    def extract(self) -> None:
        """Press a slot's button."""
        for widget in self._widgets(SimilarityWidget):
            slot = (widget.first, widget.second)[self.rng.integers(2)]
            widget.options.patch_size.setValue(50)
            widget.options.folder.setText(str(self.folder / "features"))
            slot.encoder.setCurrentText(TINY)
            slot.compute.click()
            return

    def find_tissue(self) -> None:
        """Press the button."""
        for widget in self._widgets(SlideWidget):
            widget.tissue.search.click()
            return

    def fine_tune(self) -> None:
        """Start a small training, into a new or an old folder."""
        for widget in self._widgets(FinetuneWidget):
            self.runs += int(self.rng.integers(2))
            widget.form.student.setCurrentText("random:test_efficientnet")
            widget.form.teacher.setCurrentText(TINY)
            widget.form.patches.patch_size.setValue(32)
            widget.start.out.put(self.folder / f"run{self.runs}")
            widget.start.start.click()
            return

    def pre_train(self) -> None:
        """Start a small pre-training of the open slides, into a new or an old folder."""
        for widget in self._widgets(MaeWidget):
            self.runs += int(self.rng.integers(2))
            widget.form.with_slides.setChecked(True)
            widget.form.patches.patch_size.setValue(32)
            for name, value in SMALL.items():
                widget.form.options.put(name, value)
            widget.start.out.put(self.folder / f"run{self.runs}")
            widget.start.start.click()
            return

    def turn_page(self) -> None:
        """Turn to another tab of a widget that has some."""
        if pages := self._widgets(QTabWidget):
            tabs = self._one_of(pages)
            tabs.setCurrentIndex(int(self.rng.integers(tabs.count())))

    def cancel(self) -> None:
        """Cancel whatever runs."""
        self.session.jobs.cancel()

    def delete_layer(self) -> None:
        """Delete any layer, mostly one that lies on a slide."""
        layers, slides = list(self.viewer.layers), self.session.layers.slides()
        if self.rng.integers(4):
            layers = [layer for layer in layers if layer not in slides]
        if layers:
            self.viewer.layers.remove(self._one_of(layers))

    def rename_layer(self) -> None:
        """Give a layer another name, perhaps another's."""
        if self.viewer.layers:
            self._one_of(list(self.viewer.layers)).name = "query patch"

    def hide_layer(self) -> None:
        """Hide a layer, or show it again."""
        if self.viewer.layers:
            layer = self._one_of(list(self.viewer.layers))
            layer.visible = not layer.visible

    def choose_slide(self) -> None:
        """Choose a slide in a dock's list, perhaps the one that is shown."""
        for widget in self._widgets(SlideSelector):
            if widget.choice.count():
                number = int(self.rng.integers(widget.choice.count()))
                widget.choice.setCurrentIndex(number)
                widget.choice.activated.emit(number)
            return

    def give_features(self) -> None:
        """Load features into a slot of the current slide, of one of three encoders."""
        slide, metadata = self.session.slide, self.session.metadata
        if slide is None or metadata is None or metadata.mpp is None:
            return
        number = int(self.rng.integers(3))
        slot = ("first", "second", "third")[self.rng.integers(3)]
        key = metadata.path, number
        if key not in self._features:
            made = features_of(Path(metadata.path), dim=8 + number, mpp=metadata.mpp[0])
            encoder = {"fingerprint": f"encoder {number}", "spec": f"encoder{number}"}
            features = replace(made.index.features, encoder=encoder)
            self._features[key] = LoadedFeatures(
                f"encoder{number}", SimilarityIndex(features), Path("none")
            )
        self.session.set_features(slide, slot, self._features[key])

    def select_layer(self) -> None:
        """Select a layer in the layer list."""
        if self.viewer.layers:
            layer = self._one_of(list(self.viewer.layers))
            self.viewer.layers.selection.active = layer

    def move_threshold(self) -> None:
        """Move the threshold, or reset it."""
        areas = context_of(self.session).areas
        if self.rng.integers(4):
            areas.step(int(self.rng.integers(-5, 6)))
        else:
            areas.reset_threshold()

    def move_context(self) -> None:
        """Move the slider of the context."""
        for widget in self._widgets(SimilarityWidget):
            widget.query.around.slider.setValue(int(self.rng.integers(4)))
            return

    def undo(self) -> None:
        """Undo the last change of the query."""
        context_of(self.session).queries.undo()

    def redo(self) -> None:
        """Redo what was undone."""
        context_of(self.session).queries.redo()

    def side_by_side(self) -> None:
        """Show all slides, or mostly the current one alone."""
        self.session.show_side_by_side(not self.rng.integers(3))

    def compare(self) -> None:
        """Show a difference of two encoders, or none."""
        pairs = (None, ("first", "second"), ("second", "third"))
        context_of(self.session).queries.compare(pairs[self.rng.integers(3)])

    def click_tissue(self) -> None:
        """Click in the middle of the tissue of the current slide."""
        slide = self.session.slide
        if slide is None:
            return
        size = np.asarray(slide.data.shapes[0][:2])
        place = slide.data_to_world(size * self.rng.uniform(0.35, 0.65, 2))
        camera, native = self.viewer.scene.camera, self._canvas()
        middle = np.array([native.height(), native.width()]) / 2
        row, column = (np.asarray(place) - camera.center[-2:]) * camera.zoom + middle
        modifiers = Qt.KeyboardModifier
        keys = (
            modifiers.NoModifier,
            modifiers.ShiftModifier,
            modifiers.ControlModifier,
        )
        at, key = QPoint(round(column), round(row)), keys[self.rng.integers(3)]
        if native.rect().contains(at):
            QTest.mouseClick(native, Qt.MouseButton.LeftButton, key, at)

    def hover(self) -> None:
        """Follow the cursor for a moment, which ends with a click there."""
        clicks, native = context_of(self.session).clicks, self._canvas()
        clicks.follow_cursor(True)
        for _ in range(3):
            x, y = (
                int(self.rng.integers(n)) for n in (native.width(), native.height())
            )
            QTest.mouseMove(native, QPoint(x, y))
            QApplication.processEvents()
        clicks.follow_cursor(False)

    def label_tissue(self) -> None:
        """Press a digit over the middle of the tissue, of one of two classes or more."""
        slide = self.session.slide
        if slide is None:
            return
        if not self._widgets(ClassesWidget):
            self.viewer.window.add_plugin_dock_widget(PLUGIN, "Classes")
        while len(self.session.labels.classes) < 2:
            self.session.labels.new_class()
        size = np.asarray(slide.data.shapes[0][:2])
        place = slide.data_to_world(size * self.rng.uniform(0.35, 0.65, 2))
        self.viewer.scene.camera.center = tuple(place[-2:])
        self.viewer.cursor.position = tuple(place)
        native = self._canvas()
        QTest.mouseMove(native, native.rect().center())
        QTest.keyClick(native, str(self.rng.integers(4)))

    def add_class(self) -> None:
        """Add a class, up to three of them."""
        if len(self.session.labels.classes) < 3:
            for widget in self._widgets(ClassesWidget):
                widget.classes.add.click()
                return

    def change_class(self) -> None:
        """Give a class another name, colour or key, or delete it."""
        labels = self.session.labels
        if not labels.classes:
            return
        one = self._one_of(list(labels.classes))
        what = self.rng.integers(4)
        if what == 0:
            new = f"kind {self.rng.integers(3)}"
            labels.use(labels.set.rename_class(one.name, new))
        elif what == 1:
            colour = f"#{self.rng.integers(1 << 24):06x}"
            labels.use(labels.set.with_class(replace(one, color=colour)))
        elif what == 2:
            labels.use(labels.set.without_class(one.name))
        else:
            labels.use(labels.set.with_class(replace(one, key=2)))

    def lasso(self) -> None:
        """Draw around some patches, and mostly label them."""
        slide = self.session.slide
        if slide is None or not self._widgets(ClassesWidget):
            return
        lasso = labelling_of(self.session).labels.lasso
        lasso.begin()
        height, width = slide.data.shapes[0][:2]
        corners = np.array([(0.4, 0.4), (0.4, 0.5), (0.5, 0.5), (0.5, 0.4)])
        self.session.layers.active.add(corners * (height, width), shape_type="polygon")
        _wait_until(lambda: lasso.regions)
        keys = ["1", "2", "9", Qt.Key.Key_Escape]
        QTest.keyClick(self._canvas(), keys[self.rng.integers(len(keys))])

    def label_next(self) -> None:
        """Begin to label next, or answer."""
        for widget in self._widgets(ClassesWidget):
            suggestions = labelling_of(self.session).suggestions
            if not suggestions.active:
                widget.next.start.click()
            keys = [Qt.Key.Key_Return, "1", "2", Qt.Key.Key_Space, Qt.Key.Key_Escape]
            QTest.keyClick(self._canvas(), keys[self.rng.integers(len(keys))])
            return

    def show_classes(self) -> None:
        """Press a button of the kinds of maps, or move the limit or the context."""
        for widget in self._widgets(ClassesWidget):
            what = self.rng.integers(3)
            if what == 0:
                self._one_of(list(widget.map.kinds.values())).click()
            elif what == 1:
                widget.options.limit.setValue(float(self.rng.choice([0.4, 0.6, 0.9])))
            else:
                labelling_of(self.session).classifier.use_radius(
                    int(self.rng.integers(2))
                )
            return

    def undo_by_key(self) -> None:
        """Undo or redo whatever was changed last."""
        modifiers = Qt.KeyboardModifier.ControlModifier
        if not self.rng.integers(3):
            modifiers |= Qt.KeyboardModifier.ShiftModifier
        QTest.keyClick(self._canvas(), Qt.Key.Key_Z, modifiers)

    def register(self) -> None:
        """Register two slides, and mostly wait for it."""
        if not self._widgets(SectionsWidget):
            self.viewer.window.add_plugin_dock_widget(PLUGIN, "Sections")
        if self.session.jobs.status.busy:
            return
        for widget in self._widgets(SectionsWidget)[:1]:
            widget.registration.register.click()
            if self.rng.integers(4):
                _wait_until(lambda: not self.session.jobs.status.busy)

    def link_sections(self) -> None:
        """Link the views or end it, and show edges or hide them."""
        for widget in self._widgets(SectionsWidget)[:1]:
            panel = widget.registration
            (panel.link if self.rng.integers(2) else panel.show_edges).click()

    def carry_over(self) -> None:
        """Carry something over to the other slide, but no file."""
        for widget in self._widgets(SectionsWidget)[:1]:
            panel = widget.carrying
            panel.refresh()
            if panel.carry.isEnabled() and panel.what.count() > 1:
                panel.what.setCurrentIndex(
                    int(self.rng.integers(panel.what.count() - 1))
                )
                panel.carry.click()

    def switch_theme(self) -> None:
        """Dark to light and back."""
        self.viewer.theme = "light" if self.viewer.theme == "dark" else "dark"

    def wait(self) -> None:
        """Look at what is there."""
        end = time.monotonic() + float(self.rng.uniform(0, 0.5))
        _wait_until(lambda: time.monotonic() > end)

    def _one_of(self, things: list[Any]) -> Any:
        return things[self.rng.integers(len(things))]

    def _canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas.native

    def _docks(self) -> list[Any]:
        docks = self.viewer.window._qt_window.findChildren(QDockWidget)
        return [d for d in docks if d.objectName().endswith(f"({PLUGIN})")]

    def _widgets(self, kind: type[Any]) -> list[Any]:
        window = self.viewer.window._qt_window
        return [w for w in window.findChildren(kind) if w.window() is not None]


class Complaints:
    """Everything that goes wrong aloud: exceptions, and napari's error messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._hook = sys.excepthook

    def __enter__(self) -> Complaints:
        sys.excepthook = self._caught
        notification_manager.notification_ready.connect(self._told)
        self._ask, closing.ask_to_stop = closing.ask_to_stop, lambda *_: True
        return self

    def __exit__(self, *_: object) -> None:
        sys.excepthook = self._hook
        notification_manager.notification_ready.disconnect(self._told)
        closing.ask_to_stop = self._ask

    def _caught(self, kind: Any, error: Any, trace: Any) -> None:
        self.texts.append(f"{kind.__name__}: {error}")
        self._hook(kind, error, trace)

    def _told(self, notification: Any) -> None:
        if str(notification.severity) in ("error", "NotificationSeverity.ERROR"):
            self.texts.append(str(notification.message))


def _wait_until(happened: Callable[[], Any], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        QApplication.processEvents()
        time.sleep(0.005)


def _memory_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    """Do as many seeds as asked for, one viewer after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--actions", type=int, default=200)
    options = parser.parse_args()
    import napari
    from qtpy import API_NAME

    from napari_mcm.viewer.app import persistence as remembered
    from tests.viewer.conftest import write_pair

    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        remembered._file = lambda: folder / "remembered.json"
        slides = write_pair(folder)
        for seed in range(options.first, options.first + options.seeds):
            with Complaints() as complaints:
                viewer = napari.Viewer()
                user = RandomUser(viewer, slides, folder / str(seed), seed)
                user.act(options.actions)
                user.finish()
                seen, maps = user.seen, user.maps
                viewer.close()
                QApplication.processEvents()
            del viewer, user
            gc.collect()
            complaints.texts += seen
            bad += bool(complaints.texts)
            print(
                f"{API_NAME} seed {seed}: {len(complaints.texts)} complaints, "
                f"{maps} maps seen, "
                f"{threading.active_count()} threads, {_memory_mb():.0f} MB",
                *complaints.texts,
                sep="\n  ",
                flush=True,
            )
    sys.exit(bad)


if __name__ == "__main__":
    main()
