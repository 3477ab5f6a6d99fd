"""A session on real tissue: label three classes on one section, apply them to the others.

Drives the real window by mouse and keys: section C2 of HER2ST is opened, its features are
computed, and 30 patches get the label of the pathologist's spot that lies on them: the
first by pointing and a digit, the others by answering *Label next*. Classes, areas and
classifier are exported from the window's menus. The command line then classifies all four
sections. Checked are:

- the window's areas and files of C2 are those of the command line, byte for byte (but
  for the UUID that each OME-TIFF gets);
- the exported GeoJSON is what QuPath documents, opens in shapely, and its regions do not
  overlap and have the areas of the table;
- on C3 to C5, how often the class of a patch is that of the spot on it.

Pictures are for looking at; they show slides whose licence is not certain, and stay out of
the project.

    scripts/with_display.sh .venv/bin/python -m benchmarks.label_session \\
        --data ../shared/data --out session [--size 1280 800]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    # Read once, as napari is imported: what the user keeps is neither used nor changed.
    _settings = tempfile.TemporaryDirectory()
    os.environ["NAPARI_CONFIG"] = f"{_settings.name}/settings.yaml"
    os.environ["XDG_CONFIG_HOME"] = f"{_settings.name}/config"

import numpy as np
import shapely
from benchmarks.studies.prepare import HER2ST
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit, QMenu

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
from screenshot_driver import Studio, settle, wait  # noqa: E402

from napari_mcm.cli.app import main as napari_mcm
from napari_mcm.core.evaluation.labels import label_patches
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.runtime.files import write_json
from napari_mcm.viewer.labelling import results_panel
from napari_mcm.viewer.labelling.context import labelling_of

CLASSES = ("invasive cancer", "connective tissue", "adipose tissue")
ENCODER = "offline:efficientnet_lite0"
LABELS, POINTED = 30, 2
SPOTS = ("pixel_x", "pixel_y", "pathologist_label_transferred")


class Visit:
    """The session in the window."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder = options.data.resolve() / "slides" / "her2st"
        self.out = options.out.resolve()
        self.studio = Studio(self.out, tuple(options.size))
        self.viewer, self.session = self.studio.viewer, self.studio.session
        self.canvas = self.viewer.window._qt_viewer.canvas.native
        self.number, self.skipped = 0, 0

    def run(self) -> dict[str, Any]:
        """Do all steps, and return what the window said."""
        self.open()
        self.label()
        return {**self.describe(), "files": [path.name for path in self.export()]}

    def take(self, name: str) -> None:
        """Save a numbered picture of the window."""
        settle(0.5)
        self.number += 1
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        path = self.out / f"{self.number:02}-{name}.png"
        Image.fromarray(pixels[..., :3]).save(path)
        print(path, flush=True)

    def open(self) -> None:
        """Open C2, compute its features and open the dock."""
        # Features are written beside the link.
        link = self.out / HER2ST["C2"]
        link.unlink(missing_ok=True)
        link.symlink_to(self.folder / HER2ST["C2"])
        self.studio.open(link)
        similarity = self.studio.dock("Similarity")
        self.studio.compute(similarity.first, ENCODER)
        self.features = self.session.features("first").path
        grid = self.session.features("first").index.features.grid
        table = self.folder / "C2_spots.csv"
        self.grid, self.spots = grid, label_patches(table, grid, columns=SPOTS)
        self.dock = self.studio.dock("Classes")
        self.context = labelling_of(self.session)
        for name in CLASSES:
            self.dock.classes.add.click()
            settle(0.3)
            editor = self.dock.classes.list.findChild(QLineEdit)
            assert editor is not None
            editor.selectAll()
            QTest.keyClicks(editor, name)
            QTest.keyClick(editor, Qt.Key.Key_Return)
            settle(0.3)
        assert self.session.labels.set.names == CLASSES
        self.take("classes")

    def label(self) -> None:
        """Label the first patches by pointing, the others as they are suggested."""
        rng = np.random.default_rng(0)
        for name in CLASSES:
            rows = np.flatnonzero(np.asarray(self.spots) == name)
            for row in rng.choice(rows, POINTED, replace=False).tolist():
                self.point(row)
                self.answer(str(CLASSES.index(name) + 1))
        self.mapped()
        self.take("pointed")
        wait(lambda: bool(self.context.suggestions.items))
        self.dock.next.start.click()
        settle(0.5)
        halfway = False
        while len(self.session.labels.set) < LABELS:
            one = self.context.suggestions.current
            if one is None:
                wait(lambda: self.context.suggestions.current is not None)
                continue
            truth = self.spots[one.row]
            if truth in CLASSES:
                self.answer(str(CLASSES.index(truth) + 1))
            else:
                self.skipped += 1
                self.answer(" ")
            self.mapped()
            if len(self.session.labels.set) == LABELS // 2 and not halfway:
                self.take("half")
                halfway = True
        self.take("labelled")
        self.answer(Qt.Key.Key_Escape)
        buttons = self.viewer.window._qt_viewer.viewerButtons
        QTest.mouseClick(buttons.resetViewButton, Qt.MouseButton.LeftButton)
        self.studio.scroll_to(self.dock.map)
        for kind in ("unsure", "class"):
            self.dock.map.kinds[kind].click()
            settle(0.5)
            self.take(f"map-{kind}")

    def point(self, row: int) -> None:
        """Move the pointer to a patch."""
        QTest.mouseMove(self.canvas, self.studio._at(*self.grid.centres[row]))
        settle(0.1)

    def answer(self, key: str | Qt.Key) -> None:
        """Press a key on the canvas."""
        if isinstance(key, str):
            QTest.keyClicks(self.canvas, key)
        else:
            QTest.keyClick(self.canvas, key)
        settle(0.1)

    def mapped(self) -> None:
        """Wait until the map shows the newest labels."""

        def done() -> bool:
            fit = self.context.classifier.fit
            newest = fit is not None and fit.labels is self.session.labels.set
            return newest and not self.context.classifier.busy

        wait(done, 60)
        wait(lambda: not self.context.suggestions.reading, 60)
        settle(0.3)

    def describe(self) -> dict[str, Any]:
        """Return labels, trust and the areas as the list shows them."""
        wait(lambda: self.context.trust.accuracy is not None, 60)
        settle()
        tree = self.dock.classes.list
        shown = [
            [tree.topLevelItem(row).text(column) for column in range(4)]
            for row in range(tree.topLevelItemCount())
        ]
        labels = self.session.labels.set
        return {
            "labels": dict(Counter(one.label for one in labels.labels)),
            "sources": dict(Counter(one.source for one in labels.labels)),
            "skipped": self.skipped,
            "shown": shown,
            "trust": self.dock.map.trust.text(),
            "features": str(self.features),
        }

    def export(self) -> list[Path]:
        """Write all files by the menus, into a folder."""
        folder = self.out / "window"
        folder.mkdir(exist_ok=True)
        panel, written = self.dock.results, []
        for action in panel.export.menu().actions():
            if not action.text() or action.text() == "Labels layer":
                continue
            path = folder / self._name(action.text())
            path.unlink(missing_ok=True)
            with mock.patch.object(
                results_panel, "ask_save", lambda *_, p=path: str(p)
            ):
                action.trigger()
                wait(path.exists, 60)
            written.append(path)
        settle()
        menu = panel.export.menu()
        assert isinstance(menu, QMenu)
        next(one for one in menu.actions() if one.text() == "Labels layer").trigger()
        self.take("exported")
        return written

    @staticmethod
    def _name(text: str) -> str:
        """Name the file of an entry of the menu as the command line names it."""
        slide = HER2ST["C2"].split(".")[0]
        endings = {
            "Areas (CSV)…": ".areas.csv",
            "Regions for QuPath (GeoJSON)…": ".classes.regions.geojson",
            "Patches for QuPath (GeoJSON)…": ".classes.geojson",
            "Table of patches (CSV)…": ".classes.csv",
            "Labels (OME-TIFF)…": ".classes.ome.tif",
            "Classifier…": ".classifier.safetensors",
        }
        return slide + endings[text]


def command(*words: object) -> None:
    """Run a command of the command line.

    Raises
    ------
    SystemExit
        If it fails.
    """
    status = napari_mcm([str(word) for word in words])
    if status:
        raise SystemExit(status)


def classify_others(folder: Path, out: Path, features: Path, classifier: Path) -> Path:
    """Extract the features of C3 to C5, and classify all sections."""
    others = [folder / HER2ST[name] for name in ("C3", "C4", "C5")]
    made = out / "features"
    command("extract", *others, "--encoder", ENCODER, "--out", made)
    formats = [
        w for one in ("csv", "geojson", "regions", "ome-tiff") for w in ("--write", one)
    ]
    areas = out / "areas"
    command("classify", "patches", classifier, features, made, "--out", areas, *formats)
    return areas


def compare(window: Path, areas: Path) -> dict[str, bool]:
    """Say which of the window's files of C2 equal the command line's, byte for byte."""
    slide = HER2ST["C2"].split(".")[0]
    found = {}
    for file in sorted(window.glob(f"{slide}.classes.*")):
        found[file.name] = content_of(file) == content_of(areas / file.name)
    own = (window / f"{slide}.areas.csv").read_text(encoding="utf-8").splitlines()
    table = (areas / "areas.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in own if not line.startswith("all slides")]
    found["areas.csv"] = kept == [
        line for line in table if line in kept or line.startswith(f"{slide},")
    ]
    return found


def content_of(path: Path) -> bytes:
    """Return what a file holds; of a TIFF without the UUID that each file gets anew."""
    content = path.read_bytes()
    if path.suffix == ".tif":
        content = re.sub(rb'UUID="urn:uuid:[0-9a-f-]+"', b"", content)
    return content


def agreement(
    folder: Path, areas: Path, section: str, features: Path
) -> dict[str, Any]:
    """Compare the classes of a section's patches with the spots on them."""
    grid = read_features(features).grid
    spots = label_patches(folder / f"{section}_spots.csv", grid, columns=SPOTS)
    name = str(grid.slide["name"])
    with (areas / f"{name}.classes.csv").open(encoding="utf-8", newline="") as opened:
        classes = {int(row["patch"]): row["class"] for row in csv.DictReader(opened)}
    known = [row for row, label in enumerate(spots) if label in CLASSES]
    sure = [row for row in known if classes[row] != "unsure"]
    recalls = []
    for label in CLASSES:
        own = [row for row in sure if spots[row] == label]
        recalls.append(np.mean([classes[row] == label for row in own]) if own else None)
    table = Counter((spots[row], classes[row]) for row in known)
    return {
        "spots": len(known),
        "unsure": 1 - len(sure) / len(known),
        "agreement": float(np.mean([classes[row] == spots[row] for row in sure])),
        "recall": dict(zip(CLASSES, recalls, strict=True)),
        "table": {f"{truth} -> {found}": n for (truth, found), n in table.items()},
    }


def check_geojson(path: Path, areas: dict[str, float], mpp: tuple[float, float]) -> int:
    """Check a file of regions against QuPath's documentation, and its areas.

    Returns
    -------
    int
        Number of regions.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    shapes: dict[str, list[Any]] = {}
    for feature in content["features"]:
        assert feature["type"] == "Feature"
        uuid.UUID(feature["id"])
        properties = feature["properties"]
        # What QuPath 0.4 and later read: objectType, classification, measurements.
        assert properties["objectType"] in ("annotation", "tile")
        classification = properties["classification"]
        assert isinstance(classification["name"], str)
        assert [0 <= c <= 255 for c in classification["color"]] == [True] * 3
        values = properties["measurements"].values()
        assert all(isinstance(v, int | float) for v in values)
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert shape.is_valid and shape.geom_type in ("Polygon", "MultiPolygon")
        shapes.setdefault(classification["name"], []).append(shape)
    whole = [shapely.union_all(some) for some in shapes.values()]
    # Level-0 pixels: no class covers another, nor itself twice.
    total = sum(shape.area for some in shapes.values() for shape in some)
    assert np.isclose(shapely.union_all(whole).area, total, rtol=1e-9)
    for name, union in zip(shapes, whole, strict=True):
        mm2 = union.area * mpp[0] * mpp[1] / 1e6
        assert np.isclose(mm2, areas[name], rtol=1e-9), (name, mm2, areas[name])
    return len(content["features"])


def main() -> None:
    """Run the session, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 800))
    options = parser.parse_args()
    visit = Visit(options)
    found = visit.run()
    visit.viewer.close()
    window, out = visit.out / "window", visit.out
    features = Path(found.pop("features"))
    slide = HER2ST["C2"].split(".")[0]
    classifier = window / f"{slide}.classifier.safetensors"
    areas = classify_others(visit.folder, out, features, classifier)
    found["same"] = compare(window, areas)
    with (areas / "areas.csv").open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    found["areas"] = rows
    own = {r["class"]: float(r["area_mm2"]) for r in rows if r["slide"] == slide}
    mpp = tuple(read_features(features).grid.slide["mpp"])
    found["geojson"] = {
        ending: check_geojson(window / f"{slide}{ending}", own, mpp)
        for ending in (".classes.regions.geojson", ".classes.geojson")
    }
    files = {
        name: next((out / "features").glob(f"*{name}*.features.zarr"))
        for name in ("C3", "C4", "C5")
    }
    found["agreement"] = {
        "C2": agreement(visit.folder, areas, "C2", features),
        **{
            name: agreement(visit.folder, areas, name, file)
            for name, file in files.items()
        },
    }
    write_json(out / "session.json", found)
    print(json.dumps(found, indent=1))
    assert all(found["same"].values()), found["same"]


if __name__ == "__main__":
    main()
