"""Forms for all options of a task: main options visible, the others collapsed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPalette, QPixmap, QPolygonF
from qtpy.QtWidgets import QGroupBox, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_mcm.core.runtime.options import walk
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.qt.fields import ChoiceLabels
from napari_mcm.viewer.qt.option_form import Labels, OptionForm, value_of

_SIDE = 16
"""Side of the triangle's icon in pixels."""

# Corners (x, y) of the triangle of a closed and of an open section.
_RIGHT = (5.5, 3.5), (11.5, 8.0), (5.5, 12.5)
_DOWN = (3.5, 5.5), (12.5, 5.5), (8.0, 11.5)


class CollapsibleSection(QCollapsible):
    """A section with a title that hides or shows its content.

    A triangle points right while the section is closed, and down while it is open.

    Parameters
    ----------
    title : str
        Title of the section.
    """

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self._draw()

    def changeEvent(self, event: QEvent | None) -> None:
        """Redraw the triangles when the theme changes."""
        super().changeEvent(event)
        kinds = QEvent.Type.PaletteChange, QEvent.Type.StyleChange
        if event is not None and event.type() in kinds:
            self._draw()

    def _draw(self) -> None:
        colour = self.palette().color(QPalette.ColorRole.WindowText)
        self.setCollapsedIcon(triangle(False, colour, self.devicePixelRatioF()))
        self.setExpandedIcon(triangle(True, colour, self.devicePixelRatioF()))


def triangle(down: bool, colour: QColor, ratio: float) -> QIcon:
    """Draw the triangle of a section.

    Parameters
    ----------
    down : bool
        Whether it points down, as for an open section, or right.
    colour : QColor
        Colour of the triangle.
    ratio : float
        Device pixels per pixel.
    """
    corners = _DOWN if down else _RIGHT
    pixmap = QPixmap(round(_SIDE * ratio), round(_SIDE * ratio))
    pixmap.setDevicePixelRatio(ratio)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colour)
    painter.drawPolygon(QPolygonF([QPointF(x, y) for x, y in corners]))
    painter.end()
    return QIcon(pixmap)


class AllOptions:
    """A form for the main options of a task, and collapsed forms for the others.

    Parameters
    ----------
    model : type of BaseModel
        Configuration of the task.
    main : sequence of (str, str)
        Names and labels of the visible options.
    titles : mapping
        First part of an option's name to the title of its group. The group "" takes the
        options without another group.
    excluded : collection of str
        Names of options that have fields elsewhere.
    words : mapping, optional
        Name of an option to the labels of its choices.

    Attributes
    ----------
    main, more : QWidget
        The visible form, and the box of collapsed forms, to add to a layout.
    groups : dict
        Group to its collapsed form.
    forms : tuple of OptionForm
        All forms.
    labels : sequence of (str, str)
        Names and labels of all options.
    """

    def __init__(
        self,
        model: type[BaseModel],
        main: Labels,
        titles: Mapping[str, str],
        excluded: Collection[str],
        words: Mapping[str, ChoiceLabels] | None = None,
    ) -> None:
        shown = {name for name, _ in main}
        names = [option.name for option in walk(model)]
        rest = [name for name in names if name not in shown and name not in excluded]
        self.main = OptionForm(model, main, words)
        self.groups = {
            group: OptionForm(
                model, [(n, label_of(n)) for n in rest if _group(n, titles) == group]
            )
            for group in titles
        }
        self.more = collapsible(self.groups, titles)
        self.forms = (self.main, *self.groups.values())
        self.labels: Labels = (*main, *((name, label_of(name)) for name in rest))
        self._put_preferred()

    def values(self) -> dict[str, Any]:
        """Return the name and value of all options."""
        values: dict[str, Any] = {}
        for form in self.forms:
            values |= form.values()
        return values

    def put(self, name: str, value: Any) -> None:
        """Set the value of an option, if it has a field here."""
        for form in self.forms:
            if name in form.names:
                form.put(name, value)

    def show_config(self, config: BaseModel, names: Collection[str]) -> None:
        """Set some options to their values in a configuration.

        Parameters
        ----------
        config : BaseModel
            Configuration of the task.
        names : collection of str
            Names of the options to set.
        """
        for name in names:
            self.put(name, value_of(config, name))

    def _put_preferred(self) -> None:
        preferred = preferences().compute
        for name in ("device", "precision"):
            # "auto" keeps the task's default, which may differ to make runs comparable.
            if (value := getattr(preferred, name)) != "auto":
                self.put(f"compute.{name}", value)


class CollapsibleForms(CollapsibleSection):
    """A collapsed form whose fields are created when it is first expanded.

    Parameters
    ----------
    title : str
        Title of the section.
    form : OptionForm
        The form.
    """

    def __init__(self, title: str, form: OptionForm) -> None:
        super().__init__(title)
        self._form = form
        # Collapsed content has height 0 but counts as visible: hidden, it stays empty.
        form.hide()
        self.addWidget(form)

    def expand(self, animate: bool = True) -> None:
        """Expand the section, and create the fields of its form."""
        # Before the base class measures the height of the content.
        self._form.make_fields()
        self._form.show()
        super().expand(animate)


def collapsible(groups: Mapping[str, OptionForm], titles: Mapping[str, str]) -> QWidget:
    """Return a box of collapsed forms.

    Parameters
    ----------
    groups : mapping
        Group to its form.
    titles : mapping
        Group to the title of its section, in the order of sections.
    """
    box = QGroupBox("All other options")
    column = QVBoxLayout(box)
    column.setSpacing(0)
    for name, title in titles.items():
        part = CollapsibleForms(title, groups[name])
        part.setToolTip(f"More options: {title.lower()}")
        if (layout := part.layout()) is not None:
            layout.setContentsMargins(0, 0, 0, 0)
        column.addWidget(part)
    return box


def label_of(name: str) -> str:
    """Return a label for an option: ``Patch size`` for ``grid.patch_size``."""
    text = name.rpartition(".")[2].replace("_", " ")
    text = text.replace(" um", " (µm)").replace("mpp", "(µm/px)")
    known = {"lr": "rate", "ratio": "ratio", "icc": "Colours by ICC profile"}
    text = " ".join(known.get(word, word) for word in text.split())
    return text[:1].upper() + text[1:]


def _group(name: str, titles: Mapping[str, str]) -> str:
    first, _, rest = name.partition(".")
    return first if rest and first in titles else ""
