"""Fields that are made when they are first seen say what they would have said before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from qtpy.QtWidgets import QApplication, QLineEdit, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_mcm.core.cells.config import ClassifyConfig
from napari_mcm.core.mae.config import PretrainConfig
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.studies.ablation_config import AblationConfig
from napari_mcm.viewer.cells import form as ablation_form
from napari_mcm.viewer.cells import form as cells_form
from napari_mcm.viewer.finetune import form as finetune_form
from napari_mcm.viewer.mae import form as mae_form
from napari_mcm.viewer.mil import form as mil_options
from napari_mcm.viewer.qt.collapsible_forms import AllOptions
from napari_mcm.viewer.qt.option_form import OptionForm, make_config

GIVEN: dict[type[BaseModel], dict[str, Any]] = {
    FinetuneConfig: {"slides": ("a.svs",)},
    PretrainConfig: {"pictures": ("a.png",)},
    ClassifyConfig: {"data": "cells"},
    AblationConfig: {"data": "cells"},
}
FORMS = {
    FinetuneConfig: finetune_form,
    PretrainConfig: mae_form,
    ClassifyConfig: cells_form,
    AblationConfig: ablation_form,
}


@pytest.mark.parametrize("model", list(GIVEN), ids=lambda model: model.__name__)
def test_fields_say_the_same_before_they_are_made_and_after(
    qapp: QApplication, model: type[BaseModel]
) -> None:
    module: Any = FORMS[model]
    titles = getattr(module, "GROUPS", cells_form.GROUPS)
    set_elsewhere = {*GIVEN[model], *getattr(module, "_SET_ELSEWHERE", ())}
    words = getattr(module, "_WORDS", None)
    options = AllOptions(model, module.MAIN, titles, set_elsewhere, words)
    before = make_config(model, options.values() | GIVEN[model])
    assert not options.more.findChildren(QLineEdit)
    for form in options.forms:
        form.make_fields()
    assert options.more.findChildren(QLineEdit)
    assert make_config(model, options.values() | GIVEN[model]) == before


def test_what_is_put_into_a_folded_form_is_told_and_then_shown(
    qapp: QApplication,
) -> None:
    form = OptionForm(MilConfig, mil_options.MORE)
    told: list[str] = []
    form.changed.connect(told.append)
    form.put("training.epochs", 7)
    form.put("training.epochs", 7)
    assert told == ["training.epochs"] and form.values()["training.epochs"] == 7
    assert form.field("training.epochs").value() == 7
    assert told == ["training.epochs"]
    form.field("training.epochs").setValue(8)
    assert form.values()["training.epochs"] == 8 and len(told) == 2


def test_the_tab_key_reaches_what_was_unfolded_where_it_stands(
    qapp: QApplication, tmp_path: Path
) -> None:
    window, above, below = QWidget(), QPushButton("above"), QPushButton("below")
    options = AllOptions(
        ClassifyConfig, cells_form.MAIN, cells_form.GROUPS, GIVEN[ClassifyConfig]
    )
    column = QVBoxLayout(window)
    for part in (above, options.main, options.more, below):
        column.addWidget(part)
    window.show()
    for part in options.more.findChildren(QCollapsible):
        part.expand(animate=False)
    QApplication.processEvents()
    at, reached = above, []
    while (at := at.nextInFocusChain()) is not below:
        reached.append(at)
        assert len(reached) < 1000
    labels, model = options.groups["labels"], options.groups["model"]
    places = [
        reached.index(form.field(name))
        for form in (options.main, labels, model)
        for name in form.names
        if form.field(name).focusProxy() is None
    ]
    assert places == sorted(places)
    window.close()


def test_numbers_have_the_bounds_and_help_of_the_model(qapp: QApplication) -> None:
    form = OptionForm(
        PretrainConfig,
        [("recipe.epochs", "Epochs"), ("recipe.beta1", "B1"), ("recipe.seed", "Seed")],
    )
    form.put("recipe.seed", 2**40)
    epochs, beta, seed = (form.field(name) for name in form.names)
    assert (epochs.minimum(), beta.minimum(), beta.maximum()) == (1, 0, 0.99)
    epochs.setValue(0)
    assert form.values()["recipe.epochs"] == 1
    assert epochs.toolTip().startswith("Passes over all images")
    # Seeds that numpy and torch draw do not fit into 32 bits.
    assert form.values()["recipe.seed"] == seed.value() == 2**40


def test_a_value_near_an_excluded_bound_is_neither_rounded_nor_clipped(
    qapp: QApplication,
) -> None:
    form = OptionForm(PretrainConfig, (("recipe.beta2", "beta2"),))
    form.make_fields()
    assert form.values()["recipe.beta2"] == 0.95
    form.put("recipe.beta2", 0.999)
    assert form.values()["recipe.beta2"] == 0.999
    form.field("recipe.beta2").setValue(2.0)
    assert form.values()["recipe.beta2"] < 1


@pytest.mark.parametrize("preset", mae_form.PRESETS)
def test_a_preset_in_the_window_is_that_of_the_command_line(
    qapp: QApplication, preset: str
) -> None:
    options = AllOptions(
        PretrainConfig, mae_form.MAIN, mae_form.GROUPS, mae_form._SET_ELSEWHERE
    )
    for form in options.forms:
        form.make_fields()
    wanted = PretrainConfig.model_validate(
        {"preset": preset, "pictures": GIVEN[PretrainConfig]["pictures"]}
    )
    names = {
        f"{group}.{name}"
        for values in mae_form.PRESETS.values()
        for group, options_of_group in values.items()
        for name in options_of_group
    }
    options.show_config(wanted, names)
    shown = options.values() | GIVEN[PretrainConfig] | {"preset": preset}
    assert make_config(PretrainConfig, shown) == wanted
