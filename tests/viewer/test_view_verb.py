"""The verb `view` with the real napari, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from napari_mcm.core.project import Project, ProjectSlide, write_project
from napari_mcm.core.slides import open_slide
from tests.viewer.conftest import write_slide

# Once the event loop runs, writes down what the window shows, and closes it.
SCRIPT = """
import json, sys
from pathlib import Path

import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDockWidget

from napari_mcm.cli.app import main
from napari_mcm.viewer.layers.metadata import SlideMetadata

out, *arguments = sys.argv[1:]


def look():
    viewer = napari.current_viewer()
    window = viewer.window._qt_window
    plugin = {dock.name: dock for dock in window.findChildren(QDockWidget)
              if "napari-mcm" in dock.objectName()}
    facts = {
        "layers": [[layer.name, SlideMetadata.of_layer(layer).path,
                    [float(s) for s in layer.scale]] for layer in viewer.layers],
        "docks": {name: type(dock.inner_widget()).__name__
                  for name, dock in plugin.items()},
        "tabs": len(window.tabifiedDockWidgets(next(iter(plugin.values())))),
        "shown": window.isVisible(),
    }
    Path(out).write_text(json.dumps(facts))


def look_and_close():
    viewer = napari.current_viewer()
    if not viewer.layers:  # a project opens its slide in the background
        QTimer.singleShot(20, look_and_close)
        return
    try:
        look()
    finally:
        viewer.close()


run = napari.run


def run_and_look(*args, **kwargs):
    QTimer.singleShot(0, look_and_close)
    run(*args, **kwargs)


napari.run = run_and_look
sys.exit(main(arguments))
"""


def view(tmp_path: Path, *paths: Path) -> tuple[Any, dict[str, Any]]:
    """Run the verb; return how it ended, and what the window showed."""
    out = tmp_path / "facts.json"
    folders = {
        "NAPARI_CONFIG": str(tmp_path / "settings.yaml"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(out), "view", *map(str, paths)],
        env=os.environ | folders,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return ended, json.loads(out.read_text()) if out.is_file() else {}


def test_the_window_shows_the_slides_and_the_widgets(tmp_path: Path) -> None:
    slides = [write_slide(tmp_path / f"{name}.tif") for name in ("one", "two [A]")]
    ended, facts = view(tmp_path, *slides)
    assert facts, ended.stderr
    shown = [(name, path) for name, path, _ in facts["layers"]]
    assert shown == [("one", str(slides[0])), ("two [A]", str(slides[1]))]
    assert [scale for *_, scale in facts["layers"]] == [[0.5, 0.5]] * 2
    assert sorted(facts["docks"].values()) == ["SimilarityWidget", "SlideWidget"]
    assert facts["tabs"] == 1 and facts["shown"]
    assert ended.returncode == 0, ended.stderr


def test_a_project_opens_with_the_slide_that_was_on_the_screen(tmp_path: Path) -> None:
    paths = [
        write_slide(tmp_path / f"{n}.tif", mpp=m) for n, m in (("a", 0.5), ("b", 1))
    ]
    slides = []
    for path in paths:
        with open_slide(path) as slide:
            mark = slide.fingerprint
        slides.append(ProjectSlide(path=path.name, name=path.stem, fingerprint=mark))
    project = Project.new().model_copy(
        update={"slides": tuple(slides), "current": slides[1].fingerprint}
    )
    write_project(tmp_path / "p.mcm.json", project)
    ended, facts = view(tmp_path, tmp_path / "p.mcm.json")
    assert facts, ended.stderr
    assert [name for name, *_ in facts["layers"]] == ["b"]
    assert set(facts["docks"].values()) == {
        *("SimilarityWidget", "SlideWidget", "ProjectWidget"),
    }
    assert ended.returncode == 0, ended.stderr


def test_a_damaged_project_ends_before_a_window_opens(tmp_path: Path) -> None:
    (tmp_path / "p.mcm.json").write_text("{")
    ended, facts = view(tmp_path, tmp_path / "p.mcm.json")
    assert ended.returncode == 1 and not facts
    assert "p.mcm.json: is damaged: it is not JSON" in ended.stderr
