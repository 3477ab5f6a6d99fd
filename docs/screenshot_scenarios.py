"""How each picture of the program is taken; `make_pictures.py` runs this.

scripts/with_display.sh .venv/bin/python docs/screenshot_scenarios.py PART OUT HOME
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from qtpy.QtCore import Qt
from screenshot_driver import Studio, settle, wait

from napari_mcm.core.synthetic import SampleConfig
from napari_mcm.core.synthetic.cells import Cells, mix_palette
from napari_mcm.core.synthetic.cohort import plan_sample
from napari_mcm.core.synthetic.render import set_scene
from napari_mcm.viewer.atlas.widget import AtlasWidget
from napari_mcm.viewer.features.widget import FeaturesWidget
from napari_mcm.viewer.finetune.widget import FinetuneWidget
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.mae.widget import MaeWidget
from napari_mcm.viewer.mil.widget import MilWidget
from napari_mcm.viewer.sample_data import SIZE
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from napari_mcm.viewer.slide.widget import SlideWidget

WINDOW = (1500, 950)
ENCODER, TEACHER = "offline:efficientnet_lite0", "offline:efficientnet_lite2"
PATCH = 112
"""Half the usual one, so that maps of the small sample have patches enough."""
AT = (1800.0, 1900.0)
"""In the sample's tumour, in level-0 pixels."""
FAT = ((1870, 2180), (2156, 2119), (2443, 2324))
"""Through fat cells that the search takes for tissue."""
LABELS = {
    "tumour": (AT, (1090, 820), (1990, 1310), (1380, 1110), (2400, 490), (1400, 600)),
    "stroma": ((1850, 490), (1170, 2090), (680, 2170), (1500, 2220), (2400, 1600)),
    "fat": ((2050, 2220), (520, 1760), (2280, 2340)),
}
"""Places of the sample's tissues."""
COHORT = ("--slides", "16", "--size", "1600")
SMALL_MAE = {
    "model.model": "tiny",
    "model.image_size": 112,
    "model.vit_patch": 16,
    "recipe.batch_size": 32,
    "recipe.epochs": 5,
    "recipe.base_lr": 1.5e-3,
    "checkpoint_seconds": 5,
}
"""A pre-training of a minute or two."""
CELL_PX, CELL_KINDS = (
    48,
    {
        "lymphocyte": "lymphocyte",
        "spindle": "stroma",
        "tumour": "tumour",
    },
)
LYMPH = (1500, 2650, 2100, 3000)
"""Left, top, right and bottom of where the sample's lymphocytes meet two ducts."""


def slide(studio: Studio, home: Path) -> None:
    """Find tissue, show the grid, and take fat out of the mask by the eraser."""
    studio.open(None)
    widget = studio.dock("Slide")
    assert isinstance(widget, SlideWidget)
    widget.tissue.search.click()
    studio.finish()
    widget.grid.show_grid.click()
    wait(lambda: widget.grid.preview.grid is not None)
    studio.take("slide")
    widget.grid.show_grid.click()
    widget.tissue.edit.click()
    studio.dress("light")
    studio.press(Qt.Key.Key_1)
    studio.stroke(*FAT)
    wait(lambda: "saved" in widget.tissue.state.text())
    studio.take("slide-light")


def features(studio: Studio, home: Path) -> None:
    """Extract, and look at it halfway."""
    studio.open(None)
    widget = studio.dock("Features")
    assert isinstance(widget, FeaturesWidget)
    box = widget.extract
    box.encoder.setCurrentText(ENCODER)
    box.options.patch_size.setValue(PATCH)
    box.options.folder.setText(str(home / "features"))
    box.extract.click()
    studio.wait_for_part(0.4)
    studio.take("features")
    studio.finish()


def open_sample(studio: Studio, home: Path) -> SimilarityWidget:
    """Open the sample, and compute its features in the dock Similarity."""
    studio.open(None)
    widget = studio.dock("Similarity")
    assert isinstance(widget, SimilarityWidget)
    widget.options.patch_size.setValue(PATCH)
    widget.options.folder.setText(str(home / "features"))
    studio.compute(widget.first, ENCODER)
    return widget


def similarity(studio: Studio, home: Path) -> None:
    """Compute features twice, click, add examples, and compare."""
    widget = open_sample(studio, home)
    studio.click(*AT)
    studio.take("viewer-dark")
    studio.dress("light")
    studio.take("viewer-light")
    studio.dress("dark")
    studio.compute(widget.second, TEACHER)
    shown = context_of(studio.session).queries.shown_map()
    assert shown is not None
    heatmap, modifiers = shown[1], Qt.KeyboardModifier
    for patch, keys in (
        (int(heatmap.best(20)[-1]), modifiers.ShiftModifier),
        (int(np.nanargmin(heatmap.values)), modifiers.ControlModifier),
    ):
        x, y = heatmap.grid.centres[patch]
        studio.click(float(x), float(y), keys)
    studio.press(Qt.Key.Key_T)
    wait(lambda: context_of(studio.session).gallery.complete)
    studio.take("similarity")
    studio.press(Qt.Key.Key_D)
    studio.take("similarity-difference")


def classes(studio: Studio, home: Path) -> None:
    """Compute features, label patches of three tissues, and map their classes."""
    open_sample(studio, home)
    studio.dock("Classes")
    grid = studio.session.features("first").index.features.grid
    for name, places in LABELS.items():
        studio.session.labels.new_class(name)
        rows = [row for place in places if (row := grid.index_at(*place)) is not None]
        studio.session.labels.add(grid, rows, name)
    settle(5)
    studio.take("classes")


def atlas(studio: Studio, home: Path) -> None:
    """Compute features, make an atlas, and choose a cluster."""
    open_sample(studio, home)
    widget = studio.dock("Atlas")
    assert isinstance(widget, AtlasWidget)
    widget.method.count.setValue(6)
    widget.source.make.click()
    studio.finish()
    widget.map.scatter.chosen.emit(0)
    kinds = widget.map.legend.kinds
    kinds.itemClicked.emit(kinds.item(1))
    wait(lambda: widget.selection.strip.count() > 0)
    studio.take("atlas")


def finetune(studio: Studio, home: Path) -> None:
    """Preview windows, fine-tune into a new run folder, and compare."""
    studio.open(None)
    widget = studio.dock("Fine-tune")
    assert isinstance(widget, FinetuneWidget)
    widget.form.student.setCurrentText(ENCODER)
    widget.form.teacher.setCurrentText(TEACHER)
    widget.form.patches.patch_size.setValue(PATCH)
    widget.start.out.put(home / "run")
    wait(widget.start.start.isEnabled)
    studio.take("finetune-setup")
    widget.tabs.setCurrentIndex(1)
    widget.windows.show_windows.setChecked(True)
    wait(lambda: widget.windows.preview.plan is not None)
    widget.windows.another.click()
    wait(lambda: widget.windows.preview.shown is not None)
    studio.take("finetune-window")
    widget.windows.show_windows.setChecked(False)
    studio.viewer.reset_view()
    status = studio.session.jobs.status
    widget.start.start.click()
    wait(lambda: not status.busy or len(widget.controller.series.get("step", [])) > 6)
    studio.take("finetune-running")
    studio.finish()
    wait(lambda: widget.controller.run is not None)
    widget.results.compare.click()
    studio.finish()
    studio.click(*AT)
    studio.press(Qt.Key.Key_N)
    studio.take("finetune-run")


def mil(studio: Studio, home: Path) -> None:
    """Train on a generated cohort, show the results, and open a slide with attention."""
    slides, bags = home / "slides", home / "features"
    run("sample", "--out", slides, *COHORT)
    run("extract", *sorted(slides.glob("*.tif")), "--encoder", ENCODER, "--out", bags)
    widget = studio.dock("MIL")
    assert isinstance(widget, MilWidget)
    status, form = studio.session.jobs.status, widget.form
    for field, path in (
        (form.cohort, slides / "cohort.csv"),
        (form.features, bags),
        (widget.start.out, home / "run"),
    ):
        field.put(path)
    form.main.put("split.folds", 4)
    wait(widget.start.start.isEnabled)
    widget.start.start.click()
    wait(lambda: not status.busy or (2, 0) in widget.controller.curves)
    studio.take("mil-training")
    studio.finish()
    wait(lambda: widget.controller.run is not None)
    table = widget.results.table
    table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    table.selectRow(0)
    studio.take("mil-results")
    widget.results.open.click()
    wait(lambda: bool(widget.attention.tops))
    studio.take("mil-attention")


def mae(studio: Studio, home: Path) -> None:
    """Pre-train a small ViT on the slide's tissue, and ask it for a patch."""
    studio.open(None)
    widget = studio.dock("MAE & cells")
    assert isinstance(widget, MaeWidget)
    status = studio.session.jobs.status
    widget.form.with_slides.setChecked(True)
    widget.form.patches.patch_size.setValue(PATCH)
    for name, value in SMALL_MAE.items():
        widget.form.options.put(name, value)
    widget.start.out.put(home / "run")
    wait(widget.start.start.isEnabled)
    widget.start.start.click()
    studio.wait_for_part(0.5)
    wait(lambda: not status.busy or widget.preview.image is not None)
    studio.scroll_to(widget.live_preview)
    studio.take("mae-training")
    studio.finish()
    wait(lambda: widget.controller.run is not None)
    widget.tabs.setCurrentIndex(1)
    settle()
    widget.reconstruct.way.setCurrentIndex(1)
    studio.look_at(*AT, 8)
    studio.click(*AT)
    wait(lambda: widget.reconstruction.image is not None)
    studio.take("mae-reconstruct")


def cells(studio: Studio, home: Path) -> None:
    """Train a classifier of nuclei on a part of the sample, and classify the others."""
    studio.open(None)
    widget = studio.dock("MAE & cells")
    assert isinstance(widget, MaeWidget)
    left, top, right, bottom = LYMPH
    nuclei = sample_nuclei()
    shown = {kind: found.within(*LYMPH) for kind, found in nuclei.items()}
    crop_cells(studio, nuclei, home / "nuclei")
    widget.tabs.setCurrentIndex(2)
    settle()
    widget.cells_form.data.put(home / "nuclei")
    widget.cells_form.init.setCurrentText(ENCODER)
    for name, value in (("fit.steps", 60), ("fit.learn", "probe")):
        widget.cells_form.options.put(name, value)
    widget.cells_start.out.put(home / "run")
    wait(widget.cells_start.start.isEnabled)
    widget.cells_start.start.click()
    studio.finish()
    wait(lambda: widget.classifier.run is not None)
    layer = studio.session.slide
    assert layer is not None
    places = np.concatenate([np.stack([f.y, f.x], axis=1) for f in shown.values()])
    studio.viewer.add_points(
        places, name="nuclei", scale=layer.scale, units=layer.units, size=9
    )
    widget.marked.side.setValue(CELL_PX)
    studio.look_at((left + right) / 2, (top + bottom) / 2, 5)
    widget.marked.start.click()
    studio.finish()
    studio.scroll_to(widget.marked)
    studio.take("mae-cells")


def demo(home: Path, out: Path) -> None:
    """Do the main job as `make demo` does, and keep its maps."""
    run("demo", "--out", home / "demo")
    shutil.copy(home / "demo" / "figures" / "similarity.png", out / "before-after.png")


def run(*words: str | Path) -> None:
    """Do something on the command line that a widget begins with."""
    program = Path(sys.executable).with_name("napari-mcm")
    subprocess.run([str(word) for word in (program, *words)], check=True)


def sample_nuclei() -> dict[str, Cells]:
    """Tell which nuclei were drawn on the sample, and where."""
    config = SampleConfig(slides=1, size=SIZE)
    palette = mix_palette(config.mpp, np.random.default_rng([config.seed, 0]))
    drawn = set_scene(plan_sample(config, 0), palette).cells
    return {name: drawn[kind] for kind, name in CELL_KINDS.items()}


def crop_cells(studio: Studio, nuclei: dict[str, Cells], folder: Path) -> None:
    """Write nuclei that are not shown as pictures, a folder a class."""
    slide = slide_of(studio.session.slide)
    assert slide is not None
    left, top, right, bottom = LYMPH
    for name, found in nuclei.items():
        (folder / name).mkdir(parents=True)
        inside = (left <= found.x) & (found.x < right)
        inside &= (top <= found.y) & (found.y < bottom)
        others = np.flatnonzero(~inside)
        rng = np.random.default_rng(len(name))
        for number in rng.permutation(others)[:120]:
            x, y = int(found.x[number]), int(found.y[number])
            corner = x - CELL_PX // 2, y - CELL_PX // 2
            pixels = slide.read_level(0, *corner, CELL_PX, CELL_PX)
            Image.fromarray(pixels).save(folder / name / f"{x}_{y}.png")


SITTINGS: dict[str, Callable[[Studio, Path], None]] = {
    "slide": slide,
    "features": features,
    "similarity": similarity,
    "classes": classes,
    "atlas": atlas,
    "finetune": finetune,
    "mil": mil,
    "mae": mae,
    "cells": cells,
}


def main() -> None:
    """Take the pictures of one part."""
    part, out, home = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if part == "demo":
        demo(home, out)
        return
    studio = Studio(out, WINDOW)
    SITTINGS[part](studio, home)
    studio.viewer.close()


if __name__ == "__main__":
    main()
