"""A form for options of a task, created from the task's pydantic model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from psygnal import Signal
from pydantic import BaseModel, ValidationError
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QCheckBox, QFormLayout, QWidget

from napari_mcm.core.runtime.options import Option, walk
from napari_mcm.viewer.qt.fields import ChoiceLabels, Field, make_field
from napari_mcm.viewer.qt.helpers import reach_after

_Model = TypeVar("_Model", bound=BaseModel)
Labels = Sequence[tuple[str, str]]
"""Names of options, such as ``grid.patch_size``, and their labels."""


class OptionForm(QWidget):
    """A form with input widgets for some options of a model.

    The widgets are created when the form is first shown, because most forms are
    collapsed or in a tab. Until then the form stores the values.

    Parameters
    ----------
    model : type of BaseModel
        Configuration of the task.
    options : sequence of (str, str)
        Names and labels of the options in the form.
    words : mapping, optional
        Name of an option to the labels of its choices.

    Attributes
    ----------
    changed : Signal
        Emitted with the name of an option whose value changed.
    """

    changed = Signal(str)

    def __init__(
        self,
        model: type[BaseModel],
        options: Labels,
        words: Mapping[str, ChoiceLabels] | None = None,
    ) -> None:
        super().__init__()
        known, words = _options_of(model), words or {}
        self._pending = {n: (known[n], label, words.get(n)) for n, label in options}
        # Values of the fields that are not created yet.
        self._values = {name: known[name].default for name, _ in options}
        self._fields: dict[str, Field] = {}
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)

    @property
    def names(self) -> Collection[str]:
        """Names of the options in the form."""
        return self._values.keys()

    def field(self, name: str) -> Any:
        """Return the input widget of an option."""
        self.make_fields()
        return self._fields[name].widget

    def values(self) -> dict[str, Any]:
        """Return the names and values of all options in the form."""
        if self._pending:
            return dict(self._values)
        return {name: field.read() for name, field in self._fields.items()}

    def put(self, name: str, value: Any) -> None:
        """Set the value of an option."""
        if not self._pending:
            self._fields[name].put(value)
        elif value != self._values[name]:
            self._values[name] = value
            self.changed.emit(name)

    def make_fields(self) -> None:
        """Create the input widgets, unless they exist."""
        fields = [self._add(*pending) for pending in self._pending.values()]
        self._pending = {}
        # By default, widgets created late are last in the Tab order.
        reach_after(self, fields)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Create the input widgets before the form is shown."""
        self.make_fields()
        super().showEvent(event)

    def show_config(self, config: BaseModel) -> None:
        """Set all options in the form to their values in a configuration."""
        for name in self.names:
            self.put(name, value_of(config, name))

    def _add(self, option: Option, label: str, words: ChoiceLabels | None) -> QWidget:
        field = self._fields[option.name] = make_field(option, words)
        field.put(self._values[option.name])
        widget = field.widget
        widget.setToolTip(f"{option.help}\n\n{option.flag} on the command line")
        widget.setAccessibleName(label.replace("&", ""))
        field.edited.connect(lambda *_, name=option.name: self.changed.emit(name))
        if isinstance(widget, QCheckBox):
            widget.setText(label)
            self._form.addRow(widget)
        else:
            self._form.addRow(label, widget)
        return widget


def make_config(
    model: type[_Model], values: Mapping[str, Any], labels: Labels = ()
) -> _Model:
    """Create a validated configuration from the values of options.

    Parameters
    ----------
    model : type of BaseModel
        Configuration of the task.
    values : mapping
        Name of an option, such as ``grid.patch_size``, or of a group to its value.
    labels : sequence of (str, str)
        Names and labels of options, for error messages.

    Raises
    ------
    ValueError
        If an option is invalid; the message is one line that names the first one.
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
    """Return the value of an option in a configuration.

    Parameters
    ----------
    config : BaseModel
        Configuration of a task.
    name : str
        Name of the option, with its group: ``grid.patch_size``.
    """
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


@cache
def _options_of(model: type[BaseModel]) -> Mapping[str, Option]:
    return {option.name: option for option in walk(model)}
