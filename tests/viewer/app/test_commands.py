"""What the window does on the shown slide is copied as lines that do the very same."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_mcm.cli import similarity as verb
from napari_mcm.cli.app import load_verb, make_parser
from napari_mcm.cli.options import read_config
from napari_mcm.core.heatmaps import Heatmap, SimilarityIndex
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import read_mask
from napari_mcm.viewer.app.features import FeatureRequest, LoadedFeatures
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.app.persistence import drawn_mask_path
from napari_mcm.viewer.app.settings import Preferences
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.similarity import encoder_panel as encoder_slot
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from napari_mcm.viewer.slide.widget import SlideWidget
from tests.core.evaluation.conftest import write_features
from tests.viewer.conftest import MPP, Click, wait_until
from tests.viewer.similarity.test_findings import named
from tests.viewer.similarity.test_maps import centre_um, ready

__all__ = ["ready"]


def parsed(line: str) -> Any:
    """Read a copied line as the program does."""
    program, name, *words = shlex.split(line)
    assert program == "napari-mcm"
    return read_config(make_parser(name).parse_args(words), load_verb(name).OPTIONS)


def copied(menu: CommandMenu) -> str:
    """Copy, and give what is in the clipboard."""
    clipboard = QApplication.clipboard()
    clipboard.clear()
    menu.copy.trigger()
    return clipboard.text()


@pytest.fixture
def asked(
    widget: SimilarityWidget, monkeypatch: pytest.MonkeyPatch
) -> list[FeatureRequest]:
    """What the job of the slot would be asked for, on a processor of the user's choice."""
    requests: list[FeatureRequest] = []
    chosen = Preferences(device="cpu", precision="bfloat16")
    monkeypatch.setattr(encoder_slot, "preferences", lambda: chosen)
    monkeypatch.setattr(encoder_slot, "compute_features", requests.append)
    monkeypatch.setattr(
        widget.session, "run_features", lambda title, slot, make, **_: make()
    )
    return requests


def test_features_are_computed_as_preferred_and_copied(
    widget: SimilarityWidget, asked: list[FeatureRequest], tmp_path: Path
) -> None:
    widget.options.folder.setText(str(tmp_path / "some features"))
    widget.options.overwrite.setChecked(True)
    widget.options.patch_size.setValue(64)
    widget.second.encoder.setCurrentText("resnet50")
    widget.second.start()
    config = asked[0].config
    assert (config.compute.device, config.compute.precision) == ("cpu", "bfloat16")
    assert config.grid.patch_size == 64 and config.overwrite
    assert parsed(copied(widget.second.command)) == config
    assert "Copied" in widget.second.command.feedback.text()
    file = tmp_path / "c.json"
    widget.second.command.save_to(file)
    assert parsed(f"napari-mcm extract --config '{file}'") == config


def test_a_mask_that_is_drawn_is_copied_with_it(
    widget: SimilarityWidget, asked: list[FeatureRequest]
) -> None:
    session = widget.session
    slide = slide_of(session.slide)
    from napari_mcm.core.tissue import find_tissue, write_mask

    path = drawn_mask_path(slide)
    write_mask(path, find_tissue(slide), slide)
    session.tissue.load_saved(session.slide)
    wait_until(lambda: session.tissue.drawn_mask(session.slide) is not None)
    widget.first.start()
    found = parsed(copied(widget.first.command))
    session.disk.wait()
    assert found.tissue.masks == path
    assert (
        found.model_copy(update={"tissue": asked[0].config.tissue}) == asked[0].config
    )
    # The job writes the same mask to where it looks for it.
    assert np.array_equal(read_mask(path, slide).mask, asked[0].mask.mask)


def test_without_an_encoder_it_is_said(widget: SimilarityWidget) -> None:
    widget.first.encoder.setCurrentText("")
    assert copied(widget.first.command) == ""
    assert "No encoder is chosen" in widget.problem.text()


def test_the_tissue_that_is_found_is_found_by_the_line(
    slide_widget: SlideWidget,
) -> None:
    session = slide_widget.session
    session.use_patches(session.patches.model_copy(update={"patch_size": 64}))
    slide_widget.tissue.search.click()
    wait_until(lambda: session.jobs.status.state is JobState.DONE)
    options = parsed(copied(slide_widget.tissue.command))
    assert options.grid == session.patches and options.tissue_out.suffix == ".geojson"
    # What a person draws lies elsewhere.
    assert options.tissue_out != drawn_mask_path(slide_of(session.slide))
    load_verb("grid").run(options)
    with open_slide(options.slide, MPP) as slide:
        mask = read_mask(options.tissue_out, slide).mask
    drawing = session.tissue.mask_of(session.slide)
    assert np.array_equal(mask, drawing.mask.mask)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Heatmap]:
    """The maps that the command line would write."""
    maps: list[Heatmap] = []
    monkeypatch.setattr(verb, "_write", lambda heatmap, options: maps.append(heatmap))
    return maps


@pytest.fixture
def known(
    ready: SimilarityWidget,
    loaded: LoadedFeatures,
    tmp_path: Path,
) -> SimilarityWidget:
    """The widget with features that say which encoder made them, in a file."""
    made = named(loaded, "alpha")
    path = write_features(tmp_path / "f" / "slide.features.zarr", made.index.features)
    ready.session.set_features(ready.session.slide, "first", replace(made, path=path))
    return ready


def test_encoders_that_are_compared_have_a_line_each(
    known: SimilarityWidget, click: Click, drawn: list[Heatmap], tmp_path: Path
) -> None:
    session = known.session
    made = session.features("first").index.features
    turned = replace(made, features=made.features[:, ::-1] ** 2)
    index, path = SimilarityIndex(turned), tmp_path / "g" / "slide.features.zarr"
    other = named(replace(session.features("first"), index=index), "beta")
    path = write_features(path, other.index.features)
    session.set_features(session.slide, "second", replace(other, path=path))
    click(centre_um(known, 5))
    click(centre_um(known, 9), modifiers=["Shift"])
    assert len(copied(known.query.command).splitlines()) == 2
    context_of(session).queries.compare(("first", "second"))
    lines = copied(known.query.command).splitlines()
    session.disk.wait()
    for line in lines:
        load_verb("similarity").run(parsed(line))
    context = context_of(session)
    maps, difference = context.query.maps, context.queries.drawn.difference
    shown = [maps["first"], maps["second"], difference]
    assert np.nanmax(np.abs(difference.values)) > 0.01
    for one, there in zip(drawn, shown, strict=True):
        np.testing.assert_allclose(one.values, there.values, atol=1e-5)
        assert one.colormap == there.colormap
    # They have no one configuration.
    known.query.command.save_to(tmp_path / "config.json")
    assert "several commands" in known.problem.text()
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("limits", ["encoder", "robust", "fixed"])
def test_the_query_is_asked_by_the_line(
    known: SimilarityWidget, click: Click, drawn: list[Heatmap], limits: Any
) -> None:
    session = known.session
    context_of(session).queries.use_limits(limits)
    click(centre_um(known, 5))
    click(centre_um(known, 9), modifiers=["Shift"])
    click(centre_um(known, 30), modifiers=["Control"])
    options = parsed(copied(known.query.command))
    session.disk.wait()
    saved = json.loads(options.query.read_text())
    assert len(saved["like"]) == 2 and len(saved["unlike"]) == 1
    load_verb("similarity").run(options)
    shown = context_of(session).query.maps["first"]
    np.testing.assert_allclose(drawn[0].values, shown.values, atol=1e-5)
    kind = limits if limits == "fixed" else "robust"
    assert options.limits == kind, "what is taken away has no usual range"
    click(centre_um(known, 7))
    plain = parsed(copied(known.query.command))
    session.disk.wait()
    load_verb("similarity").run(plain)
    ends = context_of(session).query.maps["first"].limits
    assert plain.limits == limits
    # The window's ends are round numbers.
    np.testing.assert_allclose(drawn[1].limits, ends, atol=0.06)
    click(centre_um(known, 9), modifiers=["Shift"])
    # Another query is another file; the same one is the same.
    again = parsed(copied(known.query.command)).query
    assert again == parsed(copied(known.query.command)).query
    assert len({options.query, plain.query, again}) == 3


def test_the_search_and_each_slides_map_are_a_line_each(
    known: SimilarityWidget, click: Click, loaded: LoadedFeatures, drawn: list[Heatmap]
) -> None:
    session = known.session
    click(centre_um(known, 5))
    assert copied(known.cross_slide.command) == ""
    assert "Search all slides first" in known.problem.text()
    folder = session.features("first").path.parent
    made = named(loaded, "alpha").index.features
    moved = replace(made.grid, slide=made.grid.slide | {"name": "b"})
    write_features(folder / "b.features.zarr", replace(made, grid=moved))
    known.cross_slide.search.click()
    wait_until(lambda: len(context_of(session).cross_slide.matches) == 2)
    lines = copied(known.cross_slide.command).splitlines()
    session.disk.wait()
    # The command line finds the same patches with the same values, to the bit.
    again = load_verb("search").run(parsed(lines[0])).result
    here = context_of(session).cross_slide
    assert [(p["slide"], p["x"], p["y"], p["value"]) for p in again["patches"]] == [
        (p.slide, p.x, p.y, p.value) for p in here.patches
    ]
    assert [
        (s["slide"], s["best"], s["mean"], s["area_mm2"]) for s in again["slides"]
    ] == [(m.name, m.best, m.mean, m.area_mm2) for m in here.matches]
    assert Path(again["files"][0]).is_file()
    for line, found in zip(lines[1:], here.matches, strict=True):
        options = parsed(line)
        assert options.features == found.features
        outcome = load_verb("similarity").run(options)
        assert outcome.result["area_mm2"] == pytest.approx(found.area_mm2, abs=1e-3)
    assert len(drawn) == 2
