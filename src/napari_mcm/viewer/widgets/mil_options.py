"""Fields for options of a training, made from the model that the engine validates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLineEdit,
    QSpinBox,
    QWidget,
)

from napari_mcm.core.mil.config import MilConfig, ModelName
from napari_mcm.viewer.widgets.parts import narrow

MODELS: dict[ModelName, str] = {
    "abmil": "ABMIL (gated attention)",
    "clam_sb": "CLAM, one attention",
    "clam_mb": "CLAM, one a class",
    "transmil": "TransMIL",
    "dsmil": "DSMIL",
    "mean": "Mean of patches",
    "max": "Maximum of patches",
}
MAIN = (("aggregator.model", "&Model"), ("split.folds", "F&olds"), ("seeds", "&Seeds"))
MORE = (
    ("training.epochs", "Epochs at most"),
    ("training.min_epochs", "Epochs at least"),
    ("training.patience", "Patience (epochs)"),
    ("training.lr", "Learning rate"),
    ("training.max_patches", "Patches of a slide"),
    ("training.patch_dropout", "Patch dropout"),
    ("training.batch_bags", "Slides a step"),
    ("training.seed", "First seed"),
    ("split.split_seed", "Seed of folds"),
    ("figures.resamples", "Bootstrap samples"),
    ("training.balanced", "Draw classes equally often"),
    ("bags.allow_missing", "Leave out slides without features"),
)


class OptionForm(QWidget):
    """A form of some options of :class:`MilConfig`; all others keep their defaults.

    Parameters
    ----------
    options : sequence of (str, str)
        Each option's name, with the group it belongs to, and its label.
    """

    def __init__(self, options: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._fields: dict[str, QWidget] = {}
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        for name, label in options:
            info = _info(name)
            field = self._fields[name] = _field(info)
            field.setToolTip(str(info.description))
            field.setAccessibleName(label.replace("&", ""))
            if isinstance(field, QCheckBox):
                field.setText(label)
                form.addRow(field)
            else:
                form.addRow(label, field)

    def field(self, name: str) -> Any:
        """Give the field of an option."""
        return self._fields[name]

    def values(self) -> dict[str, Any]:
        """Give what is chosen, by the options' names."""
        return {name: _value(field) for name, field in self._fields.items()}


def make_config(values: dict[str, Any]) -> MilConfig:
    """Make the engine's configuration from options by name.

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
        return MilConfig.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:2])
        label = dict((*MAIN, *MORE)).get(name, name).replace("&", "")
        raise ValueError(f"{label}: {first['msg']}") from None


def _info(name: str) -> FieldInfo:
    group, _, option = name.rpartition(".")
    fields = MilConfig.model_fields
    if group:
        fields = cast(Any, fields[group].annotation).model_fields
    return fields[option]


def _field(info: FieldInfo) -> QWidget:
    default = info.default
    if isinstance(default, bool):
        box = QCheckBox()
        box.setChecked(default)
        return box
    if isinstance(default, int):
        return _spin(QSpinBox(), info, 2**31 - 1)
    if isinstance(default, float):
        spin = _spin(QDoubleSpinBox(), info, 1.0)
        spin.setSingleStep(0.05)
        return spin
    if default in get_args(ModelName):
        combo = narrow(QComboBox())
        for model, text in MODELS.items():
            combo.addItem(text, model)
        combo.setCurrentIndex(combo.findData(default))
        return combo
    line = QLineEdit(str(default))
    line.setMinimumWidth(60)
    return line


def _spin(spin: Any, info: FieldInfo, most: float) -> Any:
    """Set a field's bounds as the model has them."""
    for bound in info.metadata:
        least = getattr(bound, "ge", getattr(bound, "gt", None))
        end = getattr(bound, "le", None)
        below = getattr(bound, "lt", None)
        if least is not None:
            spin.setMinimum(least)
        if below is not None:
            most = below - (0.01 if isinstance(spin, QDoubleSpinBox) else 1)
        if end is not None:
            most = end
    spin.setMaximum(most)
    spin.setValue(info.default)
    return spin


def _value(field: QWidget) -> Any:
    if isinstance(field, QCheckBox):
        return field.isChecked()
    if isinstance(field, QComboBox):
        return field.currentData()
    if isinstance(field, QSpinBox | QDoubleSpinBox):
        return field.value()
    assert isinstance(field, QLineEdit)
    text = field.text().strip()
    try:
        return float(text)
    except ValueError:
        return text or "auto"
