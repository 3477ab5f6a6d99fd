"""Input widgets for options, created from the fields of pydantic models.

Check boxes and numbers are magicgui's; lists, paths and lines need what it does not offer:
labels of choices, a dialog, and an empty value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, FloatSpinBox, SpinBox
from qtpy.QtWidgets import QComboBox, QLineEdit, QWidget

from napari_mcm.core.runtime.options import Option
from napari_mcm.viewer.qt.helpers import narrow
from napari_mcm.viewer.qt.path_field import PathField

ChoiceLabels = Mapping[Any, str]
"""Value of an option to its label in a list."""
_MAX_INT = 2**63 - 1
_SEPARATOR = "; "
"""Text between the values of an option that takes several."""


@dataclass(frozen=True)
class Field:
    """An input widget for the value of an option.

    Attributes
    ----------
    widget : QWidget
        The widget.
    read : callable
        Returns the current value, as pydantic takes it.
    put : callable
        Sets the value.
    edited : signal
        Emitted when the value changes.
    """

    widget: QWidget
    read: Callable[[], Any]
    put: Callable[[Any], None]
    edited: Any


def make_field(option: Option, words: ChoiceLabels | None = None) -> Field:
    """Create an input widget with the default and the bounds of an option.

    Parameters
    ----------
    option : Option
        Option of a configuration.
    words : mapping, optional
        Value of a choice to its label; other choices show their value.
    """
    default = option.default
    if option.kind is bool:
        field = _check_box()
    elif option.choices:
        field = _list(option, words or {})
    elif isinstance(default, int):
        field = _spin_box(SpinBox(**_bounds(option, 1, _MAX_INT, 1)))
    elif isinstance(default, float) and _bound(option, "le", "lt") is not None:
        field = _fraction(option)
    elif option.kind is Path:
        field = _path(option)
    else:
        field = _line(option)
    field.put(default)
    return field


def _check_box() -> Field:
    box = CheckBox()
    return Field(box.native, box.get_value, box.native.setChecked, box.changed)


def _list(option: Option, words: ChoiceLabels) -> Field:
    combo = narrow(QComboBox())
    values = (None, *option.choices) if option.optional else option.choices
    # Choices with labels come first, in the order of the labels.
    shown = [*words, *(value for value in values if value not in words)]
    for value in shown:
        text = "none" if value is None else str(value).replace("_", " ")
        combo.addItem(words.get(value, text))

    def put(value: Any) -> None:
        combo.setCurrentIndex(shown.index(value))

    def read() -> Any:
        return shown[combo.currentIndex()]

    return Field(combo, read, put, combo.currentIndexChanged)


def _spin_box(spin: SpinBox | FloatSpinBox) -> Field:
    # Qt's own setter moves a value to the nearest bound, where magicgui's raises.
    return Field(spin.native, spin.get_value, spin.native.setValue, spin.changed)


def _fraction(option: Option) -> Field:
    """Return a field with as many decimals as its values need, from 2 to 6."""
    spin = FloatSpinBox(**_bounds(option, 0.05, 1.0, 0.01))

    def put(value: float) -> None:
        decimals = next(
            d for d in (2, 3, 4, 5, 6) if d == 6 or round(value, d) == value
        )
        if decimals > spin.native.decimals():
            # With an excluded bound, 0.999 needs a larger maximum than 0.99, too.
            spin.native.setDecimals(decimals)
            spin.native.setMaximum(_bounds(option, 0.05, 1.0, 10**-decimals)["max"])
        spin.native.setValue(value)

    return Field(spin.native, spin.get_value, put, spin.changed)


def _bounds(option: Option, step: float, most: float, unit: float) -> dict[str, Any]:
    """Return the bounds of a number, as magicgui takes them.

    A bound that is itself excluded lies one unit of the last digit further out.
    """
    end, below = _bound(option, "le"), _bound(option, "lt")
    if end is None and below is not None:
        end = below - unit
    return {
        "min": _bound(option, "ge", "gt") or 0,
        "max": most if end is None else end,
        "step": step,
    }


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
            parts = (part.strip() for part in text.split(_SEPARATOR.strip()))
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
        return _SEPARATOR.join(map(str, value))
    # repr keeps all digits, so that reading it back gives the same number.
    return repr(value) if isinstance(value, float) else str(value)


def _bound(option: Option, *names: str) -> Any:
    for bound in option.field.metadata:
        for name in names:
            if (value := getattr(bound, name, None)) is not None:
                return value
    return None
