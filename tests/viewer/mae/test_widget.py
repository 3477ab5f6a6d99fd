"""The MAE & cells widget: pre-train, look, classify cells, run an ablation."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QSlider,
)

from napari_mcm.cli.app import load_verb, make_parser
from napari_mcm.cli.options import read_config
from napari_mcm.core.cells.training import classify
from napari_mcm.core.mae.config import ReconstructConfig
from napari_mcm.core.mae.pretraining import pretrain
from napari_mcm.core.runtime.jobs import run
from napari_mcm.viewer.app import rates
from napari_mcm.viewer.app.commands import reserve_gui_core
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.app.rates import read_rates
from napari_mcm.viewer.cells.annotations import boxes_of, crop_of
from napari_mcm.viewer.cells.run import ablation_state
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.mae import live_preview as mae_preview
from napari_mcm.viewer.mae.reconstruct_panel import SLIDE
from napari_mcm.viewer.mae.run import pretraining_state
from napari_mcm.viewer.mae.widget import TABS, MaeWidget
from napari_mcm.viewer.qt.collapsible_forms import AllOptions
from napari_mcm.viewer.training.metrics import read_series
from napari_mcm.viewer.training.start_panel import StartPanel
from tests.core.cells.conftest import COLOURS, write_classes
from tests.core.mae.conftest import CPU, LIGHT, SMALL, write_pictures
from tests.viewer.conftest import MPP, Click, finish, plain, unfold, wait_until

SLOW = 100_000
_TINY = {
    "model.model": "tiny",
    "model.image_size": 32,
    "model.vit_patch": 8,
    "model.depth": 2,
    "masking.decoder_width": 32,
    "masking.decoder_depth": 1,
    "masking.decoder_heads": 2,
    "recipe.batch_size": 4,
    "recipe.steps": 12,
    "recipe.base_lr": 0.03,
    "recipe.warmup": 0.0,
    "fit.batch_size": 8,
    "fit.base_lr": 0.03,
    "fit.steps": 24,
    "compute.device": "cpu",
    "compute.precision": "float32",
    "chunk_images": 2,
    "checkpoint_seconds": 0.0,
    "workers": 0,
}


def make_tiny(options: AllOptions, **more: Any) -> None:
    for name, value in {**_TINY, **more}.items():
        options.put(name, value)


@pytest.fixture
def mae(viewer: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[MaeWidget]:
    """The widget, docked in an empty viewer, set to tiny models."""
    monkeypatch.setattr(mae_preview, "EVERY_S", 0.0)
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "MAE & cells")
    docked.resize(320, 700)
    for number in range(docked.tabs.count()):
        docked.tabs.widget(number).make()
    for form in (docked.form, docked.cells_form, docked.ablation_form):
        make_tiny(form.options)
    yield docked
    finish(docked)
    for part in (docked.preview, docked.reconstruction):
        part.background.wait()


@pytest.fixture
def mae_run(tmp_path: Path) -> Path:
    """A pre-training of pictures that is finished."""
    from napari_mcm.core.mae import PretrainConfig, RecipeConfig

    config = PretrainConfig(
        pictures=(write_pictures(tmp_path / "learned", 4),),
        out=tmp_path / "trained",
        model=SMALL,
        masking=LIGHT,
        recipe=RecipeConfig(batch_size=4, steps=2),
        compute=CPU,
    )
    return run(pretrain(config)).run_dir


@pytest.fixture
def cell_run(tmp_path: Path) -> Path:
    """A classifier of coloured squares."""
    from napari_mcm.core.cells import ClassifyConfig, FitConfig

    counts = {"Eosinophil": 8, "Lymphocyte": 8, "Neutrophil": 8}
    config = ClassifyConfig(
        data=write_classes(tmp_path / "learned_cells", counts),
        out=tmp_path / "classifier",
        model=SMALL,
        fit=FitConfig(steps=30, batch_size=8, base_lr=0.03),
        compute=CPU,
    )
    return run(classify(config)).run_dir


def parsed(line: list[str], verb: str) -> Any:
    """Read a copied line as the program does."""
    arguments = make_parser(verb).parse_args(line)
    options = read_config(arguments, load_verb(verb).OPTIONS)
    return options.model_dump(exclude={"resume"})


def start(widget: MaeWidget, box: StartPanel, qtbot: QtBot) -> None:
    qtbot.waitUntil(box.start.isEnabled, timeout=SLOW)
    box.start.click()
    qtbot.waitUntil(lambda: widget.session.jobs.status.busy, timeout=SLOW)


def wait_for_job(widget: MaeWidget, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not widget.session.jobs.status.busy, timeout=SLOW)


def test_days_on_a_cpu_are_warned_of_before_they_start(
    mae: MaeWidget, tmp_path: Path, qtbot: QtBot
) -> None:
    panel, options = mae.start, mae.form.options
    mae.form.folder.put(write_pictures(tmp_path / "pictures", 8))
    big = {"model.model": "base", "model.image_size": 224, "model.vit_patch": 16}
    big |= {"model.depth": None, "recipe.steps": None, "recipe.epochs": 100_000}
    for name, value in big.items():
        options.put(name, value)
    qtbot.waitUntil(lambda: panel.start.text() == "Start anyway", timeout=SLOW)
    assert panel.estimate.isVisibleTo(panel) and "days" in panel.estimate.text()
    assert "fewer epochs" in panel.estimate.text()
    # The same on a GPU is not: how long it takes there is not known.
    options.put("compute.device", "cuda")
    qtbot.waitUntil(lambda: plain(panel.start) == "Pre-train", timeout=SLOW)
    assert not panel.estimate.isVisibleTo(panel)
    options.put("compute.device", "cpu")
    make_tiny(options)
    qtbot.waitUntil(lambda: "Takes roughly" in panel.estimate.text(), timeout=SLOW)
    assert plain(panel.start) == "Pre-train"


def test_a_run_that_was_measured_is_the_next_estimate(
    mae: MaeWidget, tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "_LEAST_S", 0.0)
    panel = mae.start
    mae.form.folder.put(write_pictures(tmp_path / "pictures", 8))
    qtbot.waitUntil(lambda: panel.estimate.answer is not None, timeout=SLOW)
    seen: list[float] = []
    mae.session.jobs.status.events.overall.connect(
        lambda overall: seen.append(overall.fraction or 0.0)
    )
    start(mae, panel, qtbot)
    wait_for_job(mae, qtbot)
    # Progress is not told at every step: how late the last one comes, time decides.
    assert seen == sorted(seen) and 0.5 < seen[-1] <= 1.0
    qtbot.waitUntil(lambda: "Takes about" in panel.estimate.text(), timeout=SLOW)
    (key,) = read_rates()
    assert key.startswith("mae pretrain | vit tiny, 32 px of 8")


def test_a_pre_training_runs_with_curves_and_a_reconstruction(
    mae: MaeWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    mae.form.folder.put(write_pictures(tmp_path / "pictures", 6))
    mae.start.out.put(tmp_path / "run")
    start(mae, mae.start, qtbot)
    wait_for_job(mae, qtbot)
    status = mae.session.jobs.status
    assert status.state is JobState.DONE, status.details
    qtbot.waitUntil(lambda: mae.controller.run is not None, timeout=SLOW)
    assert mae.controller.series["loss"] == read_series(tmp_path / "run")["loss"]
    assert mae.curves.charts["Loss"].isVisibleTo(mae.curves)
    qtbot.waitUntil(lambda: mae.preview.image is not None, timeout=SLOW)
    look = mae.preview.image
    assert look.source.name == "picture_00.png" and look.ratio == 0.75
    assert look.made.hidden.sum() == 12
    assert mae.live_preview.pictures.isVisibleTo(mae.live_preview)
    text = mae.live_preview.pictures.text.text()
    assert f"Masked patches: error {look.made.error_hidden:.3f}" in text
    assert f"Visible patches: error {look.made.error_visible:.3f}" in text
    # What comes next is offered.
    assert mae.reconstruct.run.path == tmp_path / "run"
    assert mae.cells_form.init.findText(f"mae:{tmp_path / 'run'}") >= 0
    # Once it is used, how the training ended is no news any more.
    assert "Trained" in mae.job.line.text()
    mae.reconstruct.picture.put(tmp_path / "pictures" / "picture_01.png")
    mae.reconstruct.start.click()
    qtbot.waitUntil(lambda: mae.reconstruction.image is not None, timeout=SLOW)
    assert mae.job.line.text() == "Reconstructed: picture_01.png"


def test_a_pre_training_is_broken_off_looked_at_and_gone_on_with(
    mae: MaeWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    mae.form.folder.put(write_pictures(tmp_path / "pictures", 6))
    mae.start.out.put(folder)
    mae.form.options.put("recipe.steps", 5000)
    start(mae, mae.start, qtbot)
    # The reconstruction follows the training while it runs.
    qtbot.waitUntil(lambda: mae.preview.image is not None, timeout=SLOW)
    first = mae.preview.image
    filled = first.made.filled
    qtbot.waitUntil(
        lambda: (mae.preview.image.made.filled != filled).any(), timeout=SLOW
    )
    assert mae.session.jobs.status.state is JobState.RUNNING
    mae.job.cancel.click()
    wait_for_job(mae, qtbot)
    assert mae.session.jobs.status.state is JobState.CANCELLED
    assert pretraining_state(folder).kind == "unfinished"
    qtbot.waitUntil(lambda: "Resume" in plain(mae.start.start), timeout=SLOW)
    assert mae.start.as_command().words[1:] == [
        *("mae", "pretrain", "--resume", str(folder)),
    ]
    done = len(mae.controller.series["step"])
    start(mae, mae.start, qtbot)
    qtbot.waitUntil(
        lambda: len(mae.controller.series.get("step", [])) > done + 1, timeout=SLOW
    )
    steps = mae.controller.series["step"]
    assert steps == [float(n) for n in range(len(steps))]


def test_looking_does_not_change_what_is_learned(
    mae: MaeWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    mae.form.folder.put(write_pictures(tmp_path / "pictures", 6))
    mae.start.out.put(tmp_path / "run")
    config = reserve_gui_core(mae.form.config(tmp_path / "undisturbed"))
    start(mae, mae.start, qtbot)
    wait_for_job(mae, qtbot)
    run(pretrain(config))
    one, other = (read_series(tmp_path / name) for name in ("run", "undisturbed"))
    assert one["loss"] == other["loss"]


def test_the_copied_lines_give_the_very_same_options(
    mae: MaeWidget, tmp_path: Path
) -> None:
    pictures = write_pictures(tmp_path / "it's", 1)
    mae.form.folder.put(pictures)
    mae.form.files.put(pictures / "picture_00.png")
    mae.cells_form.data.put(tmp_path)
    mae.cells_form.init.setCurrentText("mae:a run")
    mae.ablation_form.data.put(tmp_path)
    mae.ablation_form.options.put("arms", ("scratch", "mae:a run"))
    for box, form in (
        (mae.start, mae.form),
        (mae.cells_start, mae.cells_form),
        (mae.ablation_start, mae.ablation_form),
    ):
        box.out.put(tmp_path / "new")
        command = box.as_command()
        words = command.words[1 + len(command.verb.split()) :]
        asked = form.config(tmp_path / "new")
        assert parsed(words, command.verb) == asked.model_dump()
        box.command.save_to(tmp_path / "config.json")
        line = ["--config", str(tmp_path / "config.json")]
        assert parsed(line, command.verb) == asked.model_dump()
        box.command.copy.click()
        assert QApplication.clipboard().text() == command.line
    assert mae.ablation_form.config().arms == ("scratch", "mae:a run")


def test_presets_set_the_fields_and_are_taken_back(
    mae: MaeWidget, tmp_path: Path
) -> None:
    mae.form.folder.put(tmp_path)
    box = mae.form.options.main.field("preset")
    box.setCurrentIndex(3)
    config = mae.form.config()
    assert config.preset == "experiment3" and config.masking.mask_ratio == 0.25
    assert config.recipe.schedule == "linear" and config.images.tiles == 4
    words = mae.start.as_command().words
    assert words[words.index("--preset") + 1] == "experiment3"
    assert "--mask-ratio" not in words
    box.setCurrentIndex(0)
    config = mae.form.config()
    assert config.masking.mask_ratio == 0.75 and config.images.tiles == 1


def test_slides_are_learned_from_with_their_patches(
    mae: MaeWidget, viewer: Any, slide_path: Path
) -> None:
    viewer.open(slide_path, plugin="napari-mcm")
    assert mae.form.missing() == "No pictures or slides are chosen"
    mae.form.with_slides.setChecked(True)
    mae.form.patches.patch_size.setValue(64)
    config = mae.form.config()
    assert config.images.slides == (slide_path,) and config.grid.patch_size == 64
    assert mae.start.out.path is not None


def test_tissue_of_the_open_slide_is_pre_trained_on(
    mae: MaeWidget, viewer: Any, qtbot: QtBot, slide_path: Path, tmp_path: Path
) -> None:
    viewer.open(slide_path, plugin="napari-mcm")
    mae.form.with_slides.setChecked(True)
    mae.form.patches.patch_size.setValue(64)
    mae.form.options.put("recipe.steps", 2)
    mae.start.out.put(tmp_path / "run")
    start(mae, mae.start, qtbot)
    wait_for_job(mae, qtbot)
    status = mae.session.jobs.status
    assert status.state is JobState.DONE, status.details
    qtbot.waitUntil(lambda: mae.preview.image is not None, timeout=SLOW)
    assert mae.preview.image.source.name == "slide"
    assert mae.preview.image.source.pixels.shape == (64, 64, 3)


def test_a_preview_that_is_asked_for_again_meanwhile_is_shown(
    mae: MaeWidget, qtbot: QtBot, mae_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()
    look = mae.preview._models.reconstruct

    def slowly(*args: Any) -> Any:
        begun.set()
        assert gate.wait(20)
        return look(*args)

    monkeypatch.setattr(mae.preview._models, "reconstruct", slowly)
    mae.controller.folder = mae_run
    mae.preview.refresh()
    assert begun.wait(20)
    mae.preview.refresh()
    gate.set()
    qtbot.waitUntil(lambda: mae.preview.image is not None, timeout=SLOW)


def test_a_picture_is_filled_in_as_layers(
    mae: MaeWidget, viewer: Any, qtbot: QtBot, mae_run: Path, tmp_path: Path
) -> None:
    box, controller = mae.reconstruct, mae.reconstruction
    picture = next((tmp_path / "learned").glob("*.png"))
    box.run.put(mae_run)
    box.picture.put(picture)
    box.start.click()
    qtbot.waitUntil(lambda: not controller.busy, timeout=SLOW)
    names = ["MAE original", "MAE masked", "MAE reconstruction"]
    assert [layer.name for layer in viewer.layers] == names
    original, masked, filled = (layer.data for layer in viewer.layers)
    with Image.open(picture) as opened:
        there = np.asarray(opened.convert("RGB").resize((32, 32), 3))
    assert (original == there).all()
    hidden = np.kron(controller.image.made.hidden, np.ones((8, 8), bool))
    assert (masked[hidden] == 128).all() and (
        filled[~hidden] == original[~hidden]
    ).all()
    # Side by side: no layer hides another.
    lefts = [layer.translate[1] for layer in viewer.layers]
    assert np.diff(lefts).min() >= 32
    before = controller.image
    box.paste.setChecked(False)
    qtbot.waitUntil(lambda: controller.image is not before, timeout=SLOW)
    assert (viewer.layers[2].data[~hidden] != original[~hidden]).any()
    assert controller.image.made.error_visible == before.made.error_visible
    before = controller.image
    box.ratio.setValue(25)
    qtbot.waitUntil(lambda: controller.image is not before, timeout=SLOW)
    assert (
        controller.image.made.hidden.sum() == 4
        and "25% masked" in controller.image.describe()
    )
    assert len(viewer.layers) == 3
    before = controller.image
    box.another.click()
    qtbot.waitUntil(lambda: controller.image is not before, timeout=SLOW)
    assert (controller.image.made.hidden != before.made.hidden).any()
    # The line hides the same part of the same picture, in the same way.
    box.command.copy.trigger()
    words = shlex.split(QApplication.clipboard().text())
    assert words[:3] == ["napari-mcm", "mae", "reconstruct"]
    config = ReconstructConfig(**parsed(words[3:], "mae reconstruct"))
    assert config.paths == (mae_run, picture) and config.mask_ratio == (0.25,)
    assert config.seed == controller.options.seed == 1 and not config.paste
    errors = load_verb("mae reconstruct").run(config).result["errors"]["0.25"]
    assert errors["error_hidden"] == pytest.approx(
        controller.image.made.error_hidden, rel=1e-3
    )
    box.way.setCurrentIndex(SLIDE)
    box.command.copy.trigger()
    assert "No slide is open" in mae.problem.text()


def test_the_slide_is_filled_in_where_it_is_clicked(
    mae: MaeWidget,
    viewer: Any,
    qtbot: QtBot,
    mae_run: Path,
    slide_path: Path,
    click: Click,
) -> None:
    viewer.open(slide_path, plugin="napari-mcm")
    box, controller = mae.reconstruct, mae.reconstruction
    box.run.put(mae_run)
    click((200, 250))
    assert controller.image is None and not controller.busy
    box.way.setCurrentIndex(SLIDE)
    click((200, 250))
    qtbot.waitUntil(lambda: controller.image is not None, timeout=SLOW)
    slide, layer = mae.session.slide, viewer.layers["MAE reconstruction"]
    assert layer.units == slide.units
    # A patch of 112 µm around the place, seen where it was read.
    low, high = layer.extent.world
    assert np.allclose((low + high) / 2, (200, 250), atol=MPP)
    assert np.allclose(high - low, 112 - 112 / 32, atol=1)
    visible = [layer.visible for layer in viewer.layers if "MAE" in layer.name]
    assert visible == [False, False, True]
    pixels = slide_of(slide).read((500.5 - 112, 400.5 - 112), (224, 224), MPP)
    small = np.asarray(Image.fromarray(pixels).resize((32, 32), 3))
    assert np.abs(controller.image.made.original.astype(int) - small).mean() < 2
    look = controller.image
    # The line fills in the same place of the slide.
    box.command.copy.trigger()
    words = shlex.split(QApplication.clipboard().text())
    config = ReconstructConfig(**parsed(words[3:], "mae reconstruct"))
    assert config.paths == (mae_run, slide_path) and config.at == (controller.place,)
    (errors,) = load_verb("mae reconstruct").run(config).result["errors"].values()
    assert errors["error_hidden"] == pytest.approx(look.made.error_hidden, rel=1e-3)
    viewer.window.remove_dock_widget(mae)
    click((100, 250))
    QApplication.processEvents()
    assert controller.image is look and not controller.busy


def test_a_classifier_is_trained_and_its_confusion_is_shown(
    mae: MaeWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    counts = {"Eosinophil": 8, "Lymphocyte": 8, "Neutrophil": 16}
    mae.cells_form.data.put(write_classes(tmp_path / "cells", counts))
    mae.cells_start.out.put(tmp_path / "run")
    start(mae, mae.cells_start, qtbot)
    wait_for_job(mae, qtbot)
    status = mae.session.jobs.status
    assert status.state is JobState.DONE, status.details
    qtbot.waitUntil(lambda: mae.classifier.run is not None, timeout=SLOW)
    picture = mae.cells_results.confusion.picture
    qtbot.waitUntil(lambda: not picture._image.isNull(), timeout=SLOW)
    text = mae.cells_results.text.text()
    assert "accuracy" in text and "majority" in text and "Unreliable" in text
    assert len(mae.classifier.series["loss"]) == 24
    assert mae.marked.run.path == tmp_path / "run"


def squares(names: list[str]) -> np.ndarray:
    """A picture with a square of each class, 40 px wide, 20 px apart."""
    picture = np.full((100, 60 * len(names) + 20, 3), 255, np.uint8)
    for number, name in enumerate(names):
        left = 20 + 60 * number
        picture[30:70, left : left + 40] = COLOURS[name]
    return picture


NAMES = ["Neutrophil", "Eosinophil", "Lymphocyte", "Neutrophil"]


def test_boxes_are_classified_coloured_and_kept_in_the_table(
    mae: MaeWidget, viewer: Any, qtbot: QtBot, cell_run: Path
) -> None:
    viewer.add_image(squares(NAMES), name="smear", scale=(0.5, 0.5))
    corners = [
        [[30, 20 + 60 * n], [30, 59 + 60 * n], [69, 59 + 60 * n], [69, 20 + 60 * n]]
        for n in range(len(NAMES))
    ]
    shapes = viewer.add_shapes(
        np.array(corners), scale=(0.5, 0.5), features={"mine": range(len(NAMES))}
    )
    mae.marked.run.put(cell_run)
    mae.marked.rim.put("labels.box_margin", 0.0)
    mae.marked.start.click()
    wait_for_job(mae, qtbot)
    status = mae.session.jobs.status
    assert status.state is JobState.DONE, status.details
    assert list(shapes.features["class"]) == NAMES
    assert list(shapes.features["mine"]) == [0, 1, 2, 3]
    assert shapes.features["confidence"].between(0.4, 1).all()
    sums = sum(shapes.features[f"p_{name}"] for name in set(NAMES))
    assert np.allclose(sums, 1, atol=1e-4)
    colours = shapes.edge_color
    assert np.allclose(colours[0], colours[3])
    assert len(np.unique(colours.round(3), axis=0)) == 3
    assert shapes.text.values[1].startswith("Eosinophil\n0.")
    assert "Neutrophil: 2" in mae.marked.result.text()


def test_points_are_classified_with_a_symbol_a_class(
    mae: MaeWidget, viewer: Any, qtbot: QtBot, cell_run: Path
) -> None:
    viewer.add_image(squares(NAMES), name="smear")
    points = viewer.add_points([[50, 40 + 60 * n] for n in range(len(NAMES))])
    mae.marked.run.put(cell_run)
    mae.marked.side.setValue(40)
    mae.marked.start.click()
    wait_for_job(mae, qtbot)
    assert list(points.features["class"]) == NAMES
    symbols = [str(symbol) for symbol in points.symbol]
    assert symbols[0] == symbols[3] and len(set(symbols)) == 3
    viewer.layers.remove(points)
    assert not mae.marked.start.isEnabled()
    assert "draw boxes or points" in mae.marked.start.toolTip()


def test_boxes_on_a_slide_are_read_where_they_lie(
    mae: MaeWidget, viewer: Any, slide_path: Path
) -> None:
    viewer.open(slide_path, plugin="napari-mcm")
    slide = mae.session.slide
    points = viewer.add_points([[400, 500], [0, 0]], scale=slide.scale)
    (box, corner) = boxes_of(points, slide, 60, 0.1)
    assert box == (470, 370, 530, 430) and corner == (0, 0, 60, 60)
    pixels = slide_of(slide).read_level(0, 470, 370, 60, 60)
    assert (crop_of(slide)(box) == pixels).all()


def test_an_ablation_is_run_shown_and_gone_on_with(
    mae: MaeWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    counts = {"Lymphocyte": 12, "Neutrophil": 24}
    form, folder = mae.ablation_form, tmp_path / "ablation"
    form.data.put(write_classes(tmp_path / "cells", counts))
    mae.ablation_start.out.put(folder)
    make_tiny(form.options, **{"fit.steps": 3, "percent": (50.0, 100.0), "seeds": 1})
    form.options.put("labels.validation", 0.4)
    assert form.cells.text() == "2 classifiers: 1 × 2 × 1 seeds."
    start(mae, mae.ablation_start, qtbot)
    qtbot.waitUntil(lambda: mae.ablation.run is not None, timeout=SLOW)
    mae.job.cancel.click()
    wait_for_job(mae, qtbot)
    (folder / "cells" / "scratch" / "100pc" / "seed0" / "summary.json").unlink(
        missing_ok=True
    )
    mae.ablation_start.check_folder()
    qtbot.waitUntil(lambda: "Resume" in plain(mae.ablation_start.start), timeout=SLOW)
    words = mae.ablation_start.as_command().words
    assert words[1] == "ablate" and "--resume" not in words
    start(mae, mae.ablation_start, qtbot)
    wait_for_job(mae, qtbot)
    status = mae.session.jobs.status
    assert status.state is JobState.DONE, status.details
    results = mae.ablation_results
    qtbot.waitUntil(lambda: results.pictures.choice.count() == 2, timeout=SLOW)
    assert results.about.text() == "ablation: 2 of 2 classifiers done."
    assert "balanced accuracy" in results.table.toPlainText()
    qtbot.waitUntil(results.pictures.large.isEnabled, timeout=SLOW)
    results.pictures.large.click()
    shown = results.pictures.dialog.findChild(QLabel).pixmap()
    assert shown.width() > 1000
    results.pictures.dialog.close()
    assert ablation_state(folder).kind == "free"


def test_what_is_missing_is_said(mae: MaeWidget) -> None:
    assert not mae.start.start.isEnabled()
    mae.start.command.copy.click()
    assert mae.problem.text() == "No pictures or slides are chosen"
    mae.cells_start.command.copy.click()
    assert mae.problem.text() == "No labelled images are chosen"
    assert not mae.marked.start.isEnabled()


def test_a_tab_is_made_when_it_is_seen_and_knows_what_was_trained_before(
    viewer: Any, mae_run: Path
) -> None:
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "MAE & cells")
    docked.controller.show_run(mae_run)
    wait_until(lambda: docked.controller.run is not None)
    later = [docked.tabs.widget(number) for number in (1, 2, 3)]
    assert not any(tab.findChildren(QLineEdit) for tab in later)
    for number, tab in enumerate(later, 1):
        docked.tabs.setCurrentIndex(number)
        assert tab.findChildren(QLineEdit)
    assert docked.reconstruct.run.path == mae_run
    assert docked.cells_form.init.findText(f"mae:{mae_run}") >= 0
    finish(docked)


def test_it_fits_a_narrow_dock_and_all_is_explained(mae: MaeWidget) -> None:
    assert [mae.tabs.tabText(i) for i in range(mae.tabs.count())] == list(TABS)
    unfold(mae)
    assert mae.minimumSizeHint().width() <= 320
    for kind in (QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit, QSlider):
        for child in mae.tabs.findChildren(kind):
            above = [child, child.parent(), child.parent().parent()]
            bar = "QTabBar" in str(type(child.parent()))
            assert bar or any(part.toolTip() for part in above), child


def test_the_window_is_never_kept_waiting_for_torch() -> None:
    import subprocess
    import sys

    check = (
        "import sys, napari_mcm.viewer.mae.widget; "
        "assert not {'torch', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)
