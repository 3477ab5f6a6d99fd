"""Two slides in the real window: the one that is chosen is the one that is seen.

Drives a viewer by real mouse events and keys, asserts each step and takes a picture of
it: the list, the layer list, eyes, Home, clicks, examples, undo and redo, thresholds, a
second encoder in the place of the first, and slides side by side.

    scripts/with_display.sh .venv/bin/python benchmarks/current_slide.py SLIDE OTHER \\
        --out pictures [--size 1920 1080] [--encoder NAME] [--second NAME]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    # Read once, as napari is imported: what the user keeps is neither used nor changed.
    _settings = tempfile.TemporaryDirectory()
    os.environ["NAPARI_CONFIG"] = f"{_settings.name}/settings.yaml"
    os.environ["XDG_CONFIG_HOME"] = f"{_settings.name}/config"

import numpy as np
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QListView

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
from screenshot_driver import Studio, settle, wait  # noqa: E402

from napari_mcm.viewer.layers.metadata import owner_of
from napari_mcm.viewer.qt.slide_selector import SlideSelector
from napari_mcm.viewer.similarity.context import context_of

SHIFT, CTRL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier


class Visit:
    """The session's steps, in their order."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.studio = Studio(options.out, tuple(options.size))
        self.studio.dress(options.theme)
        self.viewer, self.session = self.studio.viewer, self.studio.session
        self.number, self.folder = 0, tempfile.TemporaryDirectory()

    def run(self) -> None:
        """Do all steps."""
        self.open()
        one, other = self.session.layers.slides()
        self.choose_in_list(one)
        self.choose_layer(other)
        self.click_eye(one)
        self.home(one)
        self.examples()
        self.rename(one)
        self.side_by_side(one, other)

    def take(self, name: str) -> None:
        """Save a numbered picture, after the invariant was checked."""
        settle(0.3)
        self.check()
        self.number += 1
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        path = self.options.out / f"{self.number:02}-{name}.png"
        Image.fromarray(pixels[..., :3]).save(path)

    def check(self) -> None:
        """Only the current slide's layers are visible, and the caption says so."""
        session, slide = self.session, self.session.slide
        for layer in self.viewer.layers:
            owner = owner_of(layer)
            if layer.visible and owner is not None and not session.side_by_side:
                assert owner is slide, f"{layer} is visible beside {slide}"
            if layer.name == "query patch" and layer.visible:
                assert layer is self._top_of(slide), f"{layer} is covered"
        query, caption = (
            context_of(session).query,
            self.viewer.canvas.overlays.text.text,
        )
        assert caption.startswith(slide.name), caption
        shown = context_of(session).queries.drawn.shown()
        if query is not None and shown:
            label = session.features(shown[-1]).label
            assert f" · {label} · " in caption, caption
            name = session.layers.map_of(slide, shown[-1]).name
            assert label in name and slide.name in name, name
        print(f"{self.number + 1:02}", caption, flush=True)

    def _top_of(self, slide: object) -> object:
        """Return the uppermost layer of a slide."""
        own = [one for one in self.viewer.layers if owner_of(one) is slide]
        return [one for one in own if one.name != "top patch"][-1]

    def open(self) -> None:
        """Open both slides, compute their features and ask each."""
        dock = self.studio.dock("Similarity")
        for path in (self.options.slide, self.options.other):
            # Features are written beside the link.
            link = Path(self.folder.name) / path.name
            link.symlink_to(path.resolve())
            self.studio.open(link)
            self.studio.compute(dock.first, self.options.encoder)
            self.click_patch(len(self.session.features("first").index.features) // 2)
            self.take("opened")
        self.dock = dock

    def click_patch(self, row: int, keys: Qt.KeyboardModifier | None = None) -> None:
        """Click on a patch of the current slide."""
        x, y = self.session.features("first").index.features.grid.centres[row]
        self.studio.click(x, y, keys or Qt.KeyboardModifier.NoModifier)
        wait(lambda: context_of(self.session).query is not None)

    def choose_in_list(self, slide: object) -> None:
        """Choose a slide in the list, by the mouse and a key."""
        for selector in self.viewer.window._qt_window.findChildren(SlideSelector):
            box, row = selector.choice, self.session.layers.slides().index(slide)
            box.setFocus()
            key = Qt.Key.Key_Up if row < box.currentIndex() else Qt.Key.Key_Down
            QTest.keyClick(box, key)
        settle()
        assert self.session.slide is slide
        self.take("chosen-in-list")

    def choose_layer(self, slide: object) -> None:
        """Click on the slide's map in napari's layer list."""
        layer = self.session.layers.map_of(slide, "first")
        self._click_row(layer, left=90)
        assert self.session.slide is slide and layer.visible
        self.take("layer-selected")

    def click_eye(self, slide: object) -> None:
        """Click on the eye of a hidden slide."""
        self._click_row(slide, left=12)
        assert self.session.slide is slide and slide.visible
        self.take("eye-clicked")

    def _click_row(self, layer: object, left: int) -> None:
        view = self.viewer.window._qt_viewer.layers
        assert isinstance(view, QListView)
        model = view.model()
        row = len(self.viewer.layers) - 1 - list(self.viewer.layers).index(layer)
        index = model.index(row, 0)
        view.scrollTo(index)
        settle(0.2)
        place = view.visualRect(index)
        at = QPoint(place.left() + left, place.center().y())
        QTest.mouseClick(
            view.viewport(),
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
            at,
        )
        settle()

    def home(self, slide: object) -> None:
        """Press Home: only the slide that is seen is fitted."""
        self.viewer.scene.camera.zoom *= 3
        buttons = self.viewer.window._qt_viewer.viewerButtons
        QTest.mouseClick(buttons.resetViewButton, Qt.MouseButton.LeftButton)
        settle()
        middle = slide.extent.world.mean(axis=0)
        assert np.allclose(self.viewer.scene.camera.center[-2:], middle)
        self.take("home")

    def examples(self) -> None:
        """Add examples, undo and redo; each kind of query has its threshold."""
        context = context_of(self.session)
        queries, areas = context.queries, context.areas
        rows = len(self.session.features("first").index.features)
        self.click_patch(rows // 3)
        areas.step(3)
        plain = areas.threshold
        self.click_patch(rows // 4, SHIFT)
        self.click_patch(2 * rows // 3, CTRL)
        assert len(queries.examples) == 3 and len(queries.examples.unlike) == 1
        low, high = areas.heatmap.limits
        assert areas.threshold == low + 0.75 * (high - low) and not areas.is_moved
        self.take("dissimilar")
        self.studio.press(Qt.Key.Key_Backspace)
        assert len(queries.examples) == 2 and areas.threshold == plain
        queries.redo()
        assert len(queries.examples) == 3
        self.studio.press(Qt.Key.Key_Escape)
        assert context.query is None
        self.studio.press(Qt.Key.Key_Backspace)
        assert len(queries.examples) == 3
        self.click_patch(rows // 2)
        assert areas.threshold == plain
        below, patches = areas.area
        assert patches < rows, f"{patches} of {rows}, {below} mm²"
        self.take("plain-again")

    def rename(self, slide: object) -> None:
        """Put another encoder into the slot: names and form follow."""
        self.studio.compute(self.dock.first, self.options.second)
        settle()
        label = self.session.features("first").label
        assert label in self.session.layers.map_of(slide, "first").name
        assert self.dock.first.encoder.spec == self.options.second
        self.take("another-encoder")

    def side_by_side(self, one: object, other: object) -> None:
        """Show both, and click each."""
        self.session.show_side_by_side(True)
        settle()
        self.take("side-by-side")
        for slide in (other, one):
            grid = self.session.features_of(slide)["first"].index.features.grid
            x, y = grid.centres[len(grid) // 3]
            at = self._on_canvas(slide, x, y)
            canvas = self.viewer.window._qt_viewer.canvas.native
            keys = Qt.KeyboardModifier.NoModifier
            QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, keys, at)
            settle()
            assert self.session.slide is slide
            found = context_of(self.session).query.maps["first"].query
            assert found == grid.index_at(x, y)
            self.take("side-by-side-clicked")
        self.session.show_side_by_side(False)
        settle()
        self.take("one-again")

    def _on_canvas(self, slide: object, x: float, y: float) -> QPoint:
        canvas = self.viewer.window._qt_viewer.canvas.native
        middle = np.array([canvas.height(), canvas.width()]) / 2
        world = np.asarray(slide.data_to_world((y - 0.5, x - 0.5)))
        camera = self.viewer.scene.camera
        row, column = (world - camera.center[-2:]) * camera.zoom + middle
        return QPoint(round(column), round(row))


def main() -> None:
    """Visit two slides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--size", type=int, nargs=2, default=(1920, 1080))
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--encoder", default="offline:efficientnet_lite0")
    parser.add_argument("--second", default="offline:efficientnet_lite2")
    visit = Visit(parser.parse_args())
    visit.run()
    visit.viewer.close()
    QApplication.processEvents()


if __name__ == "__main__":
    main()
