"""A field for one option of a task, made from what its model says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QLineEdit,
    QSpinBox,
    QWidget,
)

from napari_mcm.core.runtime.options import Option
from napari_mcm.viewer.qt.helpers import narrow
from napari_mcm.viewer.qt.path_field import PathField

Words = Mapping[Any, str]
"""How values are called in a list to choose from."""
_MOST = 2**31 - 1
_BETWEEN = "; "


@dataclass(frozen=True)
class Field:
    """A widget for an option's value.

    Attributes
    ----------
    widget : QWidget
        What is put into the form.
    read : callable
        Gives what is chosen, as pydantic takes it.
    put : callable
        Shows a value.
    edited : signal
        Another value is chosen.
    """

    widget: QWidget
    read: Callable[[], Any]
    put: Callable[[Any], None]
    edited: Any


def make_field(option: Option, words: Words | None = None) -> Field:
    """Make a field that shows an option's default, and keeps to its bounds.

    Parameters
    ----------
    option : Option
        Of a task's model.
    words : mapping, optional
        What values of a list are called; by default as they are.
    """
    default = option.default
    if option.kind is bool:
        made = _check_box()
    elif option.choices:
        made = _list(option, words or {})
    elif isinstance(default, int):
        made = _spin_box(QSpinBox(), option, 1, _MOST)
    elif isinstance(default, float) and _bound(option, "le", "lt") is not None:
        made = _spin_box(QDoubleSpinBox(), option, 0.05, 1.0)
    elif option.kind is Path:
        made = _path(option)
    else:
        made = _line(option)
    made.put(default)
    return made


def _check_box() -> Field:
    box = QCheckBox()
    return Field(box, box.isChecked, box.setChecked, box.toggled)


def _list(option: Option, words: Words) -> Field:
    combo = narrow(QComboBox())
    values = (None, *option.choices) if option.optional else option.choices
    # Those that have words come first, in the words' order.
    shown = [*words, *(value for value in values if value not in words)]
    for value in shown:
        text = "none" if value is None else str(value).replace("_", " ")
        combo.addItem(words.get(value, text))

    def put(value: Any) -> None:
        combo.setCurrentIndex(shown.index(value))

    def read() -> Any:
        return shown[combo.currentIndex()]

    return Field(combo, read, put, combo.currentIndexChanged)


def _spin_box(spin: Any, option: Option, step: float, most: float) -> Field:
    if isinstance(spin, QDoubleSpinBox):
        default = option.default
        spin.setDecimals(2 if round(default, 2) == default else 3)
    spin.setSingleStep(step)
    spin.setMinimum(_bound(option, "ge", "gt") or 0)
    end = _bound(option, "le")
    below = _bound(option, "lt")
    if end is None and below is not None:
        end = below - (0.01 if isinstance(spin, QDoubleSpinBox) else 1)
    spin.setMaximum(most if end is None else end)
    return Field(spin, spin.value, spin.setValue, spin.valueChanged)


def _path(option: Option) -> Field:
    field = PathField(option.path[-1].replace("_", " "), option.described)
    return Field(field, lambda: field.path, field.put, field.line.textChanged)


def _line(option: Option) -> Field:
    line = QLineEdit()
    line.setMinimumWidth(60)
    default = option.default

    def read() -> Any:
        text = line.text().strip()
        if option.many:
            parts = (part.strip() for part in text.split(_BETWEEN.strip()))
            return [part for part in parts if part]
        if option.optional and text in ("", "none"):
            return None
        return text or default

    def put(value: Any) -> None:
        line.setText(_written(value))

    return Field(line, read, put, line.textChanged)


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return _BETWEEN.join(map(str, value))
    # 17 digits at most: what is read back is the very same number.
    return repr(value) if isinstance(value, float) else str(value)


def _bound(option: Option, *names: str) -> Any:
    for bound in option.field.metadata:
        for name in names:
            if (value := getattr(bound, name, None)) is not None:
                return value
    return None
