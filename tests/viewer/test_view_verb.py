"""The verb `view` with the real napari, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
              if "napari-mcm" in dock.windowTitle()}
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
    try:
        look()
    finally:
        napari.current_viewer().close()


run = napari.run


def run_and_look(*args, **kwargs):
    QTimer.singleShot(0, look_and_close)
    run(*args, **kwargs)


napari.run = run_and_look
sys.exit(main(arguments))
"""


def test_the_window_shows_the_slides_and_the_widgets(tmp_path: Path) -> None:
    slides = [write_slide(tmp_path / f"{name}.tif") for name in ("one", "two [A]")]
    out = tmp_path / "facts.json"
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(out), "view", *map(str, slides)],
        env=os.environ | {"NAPARI_CONFIG": str(tmp_path / "settings.yaml")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert out.is_file(), ended.stderr
    facts = json.loads(out.read_text())
    shown = [(name, path) for name, path, _ in facts["layers"]]
    assert shown == [("one", str(slides[0])), ("two [A]", str(slides[1]))]
    assert [scale for *_, scale in facts["layers"]] == [[0.5, 0.5]] * 2
    assert sorted(facts["docks"].values()) == ["SimilarityWidget", "SlideWidget"]
    assert facts["tabs"] == 1 and facts["shown"]
    assert ended.returncode == 0, ended.stderr
