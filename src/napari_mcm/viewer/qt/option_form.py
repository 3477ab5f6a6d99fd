"""A form of a task's options, made from the model that the engine validates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from psygnal import Signal
from pydantic import BaseModel, ValidationError
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QCheckBox, QFormLayout, QWidget

from napari_mcm.core.runtime.options import Option, walk
from napari_mcm.viewer.qt.fields import Field, Words, make_field
from napari_mcm.viewer.qt.helpers import reach_after

_Model = TypeVar("_Model", bound=BaseModel)
Labels = Sequence[tuple[str, str]]
"""Names of options with their groups, as ``grid.patch_size``, and labels."""


class OptionForm(QWidget):
    """Fields for some options of a model; all others keep their defaults.

    The fields are made when they are first seen: most are folded, or behind a tab.

    Parameters
    ----------
    model : type of BaseModel
        All options of the task.
    options : sequence of (str, str)
        Which of them, and their labels.
    words : mapping, optional
        What the values of a list are called, by option.

    Attributes
    ----------
    changed : Signal
        An option, by its name, has another value.
    """

    changed = Signal(str)

    def __init__(
        self,
        model: type[BaseModel],
        options: Labels,
        words: Mapping[str, Words] | None = None,
    ) -> None:
        super().__init__()
        known, words = _options_of(model), words or {}
        self._unmade = {n: (known[n], label, words.get(n)) for n, label in options}
        # What stands in fields that are still to be made.
        self._values = {name: known[name].default for name, _ in options}
        self._fields: dict[str, Field] = {}
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)

    @property
    def names(self) -> Collection[str]:
        """The options that it is for."""
        return self._values.keys()

    def field(self, name: str) -> Any:
        """Return the widget of an option."""
        self.make_fields()
        return self._fields[name].widget

    def values(self) -> dict[str, Any]:
        """Return what is chosen, by the options' names."""
        if self._unmade:
            return dict(self._values)
        return {name: field.read() for name, field in self._fields.items()}

    def put(self, name: str, value: Any) -> None:
        """Show a value of an option."""
        if not self._unmade:
            self._fields[name].put(value)
        elif value != self._values[name]:
            self._values[name] = value
            self.changed.emit(name)

    def make_fields(self) -> None:
        """Make the fields, unless they are there."""
        fields = [self._add(*asked) for asked in self._unmade.values()]
        self._unmade = {}
        # Made late, they would be the last that the Tab key reaches.
        reach_after(self, fields)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Make the fields before they are seen."""
        self.make_fields()
        super().showEvent(event)

    def show_config(self, config: BaseModel) -> None:
        """Show what a configuration says."""
        for name in self.names:
            self.put(name, value_of(config, name))

    def _add(self, option: Option, label: str, words: Words | None) -> QWidget:
        made = self._fields[option.name] = make_field(option, words)
        made.put(self._values[option.name])
        field = made.widget
        field.setToolTip(f"{option.help}\n\n{option.flag} on the command line")
        field.setAccessibleName(label.replace("&", ""))
        made.edited.connect(lambda *_, name=option.name: self.changed.emit(name))
        if isinstance(field, QCheckBox):
            field.setText(label)
            self._form.addRow(field)
        else:
            self._form.addRow(label, field)
        return field


def make_config(
    model: type[_Model], values: Mapping[str, Any], labels: Labels = ()
) -> _Model:
    """Make the engine's configuration from options by name.

    Parameters
    ----------
    model : type of BaseModel
        All options of the task.
    values : mapping
        Options, those of groups as ``grid.patch_size``, or whole groups.
    labels : sequence of (str, str)
        What options are called in the form.

    Raises
    ------
    ValueError
        With one line that names the first option that is wrong.
    """
    nested: dict[str, Any] = {}
    for name, value in values.items():
        group, _, option = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[option] = value
    try:
        return model.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:2])
        label = dict(labels).get(name, name).replace("&", "") or "These options"
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{label}: {message}") from None


def value_of(config: BaseModel, name: str) -> Any:
    """Return an option of a configuration by its name with its group."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


@cache
def _options_of(model: type[BaseModel]) -> Mapping[str, Option]:
    return {option.name: option for option in walk(model)}
