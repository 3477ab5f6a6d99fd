"""Features that exist are found when a slide opens, and fill the free slots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.viewer.app import found as module
from napari_mcm.viewer.app.found import FoundFeatures, RememberedFile, found_features
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.core.evaluation.conftest import write_features
from tests.viewer.conftest import MPP, features_of, finish, wait_until, write_slide

Make = Callable[..., Path]


@pytest.fixture
def make(slide_path: Path) -> Make:
    """Write a feature file of the slide where the plugin would, by a named encoder."""

    def write(
        name: str, age: int = 0, path: Path = slide_path, mpp: float = MPP
    ) -> Path:
        features = features_of(path, mpp=mpp).index.features
        encoder = {
            "spec": f"random:{name}",
            "fingerprint": name,
            "precision": "float32",
        }
        folder = path.parent / "napari-mcm" / f"random-{name}"
        encoder |= {"architecture": name, "dim": features.dim}
        file = folder / f"{path.name.removesuffix('.tif')}.features.zarr"
        write_features(file, replace(features, encoder=encoder))
        os.utime(file / "zarr.json", (1e9 - age, 1e9 - age))
        return file

    return write


def opened(viewer: Any, path: Path) -> tuple[SimilarityWidget, FoundFeatures]:
    """Open a slide with the dock; all that is found is loaded."""
    viewer.open(path, plugin="napari-mcm")
    _, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    found = found_features(widget.session)
    wait_until(lambda: not found.loading)
    return widget, found


def slots(session: Session) -> dict[str, Path]:
    """Which file each slot of the active slide holds."""
    loaded = {slot: session.features(slot) for slot in ("first", "second", "third")}
    return {slot: one.path for slot, one in loaded.items() if one is not None}


def test_one_file_fills_the_first_slot(
    viewer: Any, slide_path: Path, make: Make
) -> None:
    file = make("a")
    widget, found = opened(viewer, slide_path)
    assert slots(widget.session) == {"first": file}
    loaded = widget.session.features("first")
    assert loaded is not None and loaded.label == "random:a"
    expected = features_of(slide_path).index.features
    np.testing.assert_array_equal(loaded.index.features.features, expected.features)
    assert found.offered == ()
    finish(widget)


def test_encoders_fill_the_slots_in_the_order_they_were_made(
    viewer: Any, slide_path: Path, make: Make
) -> None:
    second, first = make("b", age=10), make("a", age=20)
    widget, _ = opened(viewer, slide_path)
    assert slots(widget.session) == {"first": first, "second": second}
    finish(widget)


def test_of_more_encoders_than_slots_the_newest_is_loaded_and_the_others_offered(
    viewer: Any, slide_path: Path, make: Make
) -> None:
    files = [make(name, age) for age, name in enumerate("abcd")]
    widget, found = opened(viewer, slide_path)
    assert slots(widget.session) == {"first": files[0]}
    assert [one.path for one in found.offered] == files[1:]
    # The button Load… lists them.
    names = [action.text() for action in widget.first.load.menu().actions()]
    assert [name for name in names if "random-" in name] == [
        f"{file.name}, in {file.parent.name}" for file in files[1:]
    ]
    found.use(found.offered[1], "second")
    wait_until(lambda: not found.loading)
    assert slots(widget.session) == {"first": files[0], "second": files[2]}
    assert [one.path for one in found.offered] == [files[1], files[3]]
    found.use(found.offered[0])
    wait_until(lambda: not found.loading)
    assert slots(widget.session) == {"first": files[1], "second": files[2]}
    finish(widget)


def test_files_that_the_slide_was_left_with_are_loaded_instead(
    viewer: Any, slide_path: Path, make: Make
) -> None:
    newer, older = make("b"), make("a", age=9)
    widget, found = opened(viewer, slide_path)
    session, known = widget.session, False

    def remembered(_slide: object) -> dict[str, RememberedFile] | None:
        return {"second": RememberedFile(older, "left")} if known else None

    found.remembered = remembered
    slide = write_slide(slide_path.with_name("other.tif"), mpp=0.25)
    viewer.open(slide, plugin="napari-mcm")
    first = viewer.layers[0]
    session._loaded.clear()
    session.choose_slide(first)
    wait_until(lambda: not found.loading)
    assert slots(session) == {} and [one.path for one in found.files] == [newer, older]
    known = True
    found.fill()
    wait_until(lambda: not found.loading)
    assert slots(session) == {"second": older}
    loaded = session.features("second")
    assert loaded is not None and loaded.label == "left"
    finish(widget)


def test_files_of_another_slide_of_the_same_name_are_not_loaded(
    viewer: Any, slide_path: Path, make: Make, tmp_path: Path
) -> None:
    file = make("a")
    other = tmp_path / "elsewhere" / "slide.tif"
    other.parent.mkdir()
    write_slide(other, mpp=0.25)
    (other.parent / "napari-mcm").symlink_to(file.parents[1])
    widget, found = opened(viewer, other)
    assert slots(widget.session) == {} and found.files == ()
    finish(widget)


def test_pytorch_is_imported_only_where_nothing_is_found(
    viewer: Any, slide_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "import_in_background", begun.append)
    make("a")
    widget, _ = opened(viewer, slide_path)
    assert begun == []
    other = write_slide(slide_path.with_name("other.tif"), mpp=0.25)
    viewer.open(other, plugin="napari-mcm")
    found = found_features(widget.session)
    wait_until(lambda: not found.loading)
    assert begun == [module.EXTRACTING]
    finish(widget)


def test_each_slide_gets_its_own_and_a_slot_that_was_filled_stays(
    viewer: Any, slide_path: Path, make: Make
) -> None:
    file = make("a")
    other = write_slide(slide_path.with_name("other.tif"), mpp=0.25)
    others = make("b", path=other, mpp=0.25)
    widget, found = opened(viewer, slide_path)
    session, first = widget.session, widget.session.slide
    mine = features_of(slide_path, 25)
    session.set_features(first, "first", mine)
    viewer.open(other, plugin="napari-mcm")
    wait_until(lambda: not found.loading)
    assert slots(session) == {"first": others}
    session.choose_slide(first)
    wait_until(lambda: not found.loading)
    assert session.features("first") is mine
    assert file in [one.path for one in found.offered]
    finish(widget)


def test_what_the_user_computed_meanwhile_is_not_replaced(
    viewer: Any, slide_path: Path, make: Make
) -> None:
    make("a")
    viewer.open(slide_path, plugin="napari-mcm")
    _, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    found = found_features(widget.session)
    assert found.loading
    mine = features_of(slide_path, 25)
    widget.session.set_features(widget.session.slide, "first", mine)
    wait_until(lambda: not found.loading)
    assert widget.session.features("first") is mine
    finish(widget)


def test_a_damaged_file_is_reported_in_one_line(
    viewer: Any, slide_path: Path, make: Make
) -> None:
    file = make("a")
    (file / "coords" / "c" / "0" / "0").write_bytes(b"broken")
    widget, _ = opened(viewer, slide_path)
    assert slots(widget.session) == {}
    assert file.name in widget.session.problem and "\n" not in widget.session.problem
    finish(widget)


SCRIPT = """
import json, sys, threading, time

HEAVY = ("torch", "timm", "pandas", "sklearn", "matplotlib.pyplot", "numba",
         "skimage.filters", "skimage.segmentation", "skimage.morphology")
imported = []


class Watch:
    def find_spec(self, name, *_):
        if name in HEAVY:
            imported.append((name, threading.current_thread() is threading.main_thread()))


import napari
import numpy as np
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest


def wait(until):
    end, loop, poll = time.monotonic() + 200, QEventLoop(), QTimer()
    poll.timeout.connect(lambda: (until() or time.monotonic() > end) and loop.quit())
    poll.start(10)
    loop.exec()
    assert until()


viewer = napari.Viewer()
viewer.open(sys.argv[1], plugin="napari-mcm")
wait(lambda: True)
sys.meta_path.insert(0, Watch())
_, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
session = widget.session
if len(sys.argv) > 2:
    widget.first.encoder.setCurrentText(sys.argv[2])
    widget.options.patch_size.setValue(50)
    wait(widget.first.compute.isEnabled)
    widget.first.compute.click()
wait(lambda: session.features("first") is not None)
from napari_mcm.viewer.similarity.context import context_of

queries = context_of(session).queries
grid = session.features("first").index.features.grid
canvas = viewer.window._qt_viewer.canvas.native
maps = []
for x, y in grid.centres[:: max(len(grid) // 20, 1)][:20]:
    before = queries.query
    camera, world = viewer.scene.camera, viewer.layers[0].data_to_world((y, x))
    at = (np.array(world) - camera.center[-2:]) * camera.zoom
    point = QPoint(round(at[1] + canvas.width() / 2), round(at[0] + canvas.height() / 2))
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=point)
    wait(lambda: queries.query not in (None, before))
    maps.append(queries.maps()["first"] is not None)
print(json.dumps({"imported": imported, "maps": sum(maps),
                  "torch": "torch" in sys.modules, "layers": len(viewer.layers)}))
viewer.close()
"""


def first_use(slide: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    """Open a slide and the dock in a new process, and click 20 times."""
    environment = os.environ | {
        "NAPARI_CONFIG": str(folder / "settings.yaml"),
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(slide), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    facts: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return facts


def test_features_are_read_without_pytorch_and_no_click_imports_in_the_window(
    slide_path: Path, make: Make, tmp_path: Path
) -> None:
    make("a")
    facts = first_use(slide_path, tmp_path)
    assert facts["maps"] == 20 and facts["layers"] > 1
    assert not facts["torch"]
    assert [name for name, in_window in facts["imported"] if in_window] == []
    assert "pandas" in [name for name, _ in facts["imported"]]


def test_no_heavy_module_is_imported_in_the_window_from_the_dock_to_the_20th_click(
    slide_path: Path, tmp_path: Path
) -> None:
    facts = first_use(slide_path, tmp_path, "random:test_resnet")
    assert facts["maps"] == 20 and facts["torch"]
    assert [name for name, in_window in facts["imported"] if in_window] == []
    names = [name for name, _ in facts["imported"]]
    assert {"torch", "timm", "pandas"} <= set(names)
