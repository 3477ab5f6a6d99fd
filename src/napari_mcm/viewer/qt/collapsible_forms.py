"""Forms of all options of a task: what matters most in sight, the others folded."""

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
from napari_mcm.viewer.qt.fields import Words
from napari_mcm.viewer.qt.option_form import Labels, OptionForm, value_of

_SIDE = 16

_RIGHT = (5.5, 3.5), (11.5, 8.0), (5.5, 12.5)

_DOWN = (3.5, 5.5), (12.5, 5.5), (8.0, 11.5)


class CollapsibleSection(QCollapsible):
    """A fold whose triangle points right while it is closed, and down while it is open.

    Parameters
    ----------
    title : str
        Of what is folded.
    """

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self._draw()

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        kinds = QEvent.Type.PaletteChange, QEvent.Type.StyleChange
        if event is not None and event.type() in kinds:
            self._draw()

    def _draw(self) -> None:
        colour = self.palette().color(QPalette.ColorRole.WindowText)
        self.setCollapsedIcon(_triangle(_RIGHT, colour, self.devicePixelRatioF()))
        self.setExpandedIcon(_triangle(_DOWN, colour, self.devicePixelRatioF()))


def _triangle(
    corners: tuple[tuple[float, float], ...], colour: QColor, ratio: float
) -> QIcon:
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
    """A form of the main options of a task, and folded forms of the others.

    Parameters
    ----------
    model : type of BaseModel
        All options of the task.
    main : sequence of (str, str)
        Options in sight, and their labels.
    titles : mapping
        Groups, by the first part of an option's name, to titles; that of "" takes all
        that have no group with a title.
    cross_slide : collection of str
        Options that have fields of their own.
    words : mapping, optional
        What the values of a list are called, by option.

    Attributes
    ----------
    main, more : QWidget
        To be laid out.
    groups : dict
        The folded forms by group.
    labels : sequence of (str, str)
        What each option is called.
    """

    def __init__(
        self,
        model: type[BaseModel],
        main: Labels,
        titles: Mapping[str, str],
        cross_slide: Collection[str],
        words: Mapping[str, Words] | None = None,
    ) -> None:
        shown = {name for name, _ in main}
        names = [option.name for option in walk(model)]
        rest = [name for name in names if name not in shown and name not in cross_slide]
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
        """Return what is chosen, by the options' names."""
        found: dict[str, Any] = {}
        for form in self.forms:
            found |= form.values()
        return found

    def put(self, name: str, value: Any) -> None:
        """Show a value of an option, where it has a field here."""
        for form in self.forms:
            if name in form.names:
                form.put(name, value)

    def show_config(self, config: BaseModel, names: Collection[str]) -> None:
        """Show what a configuration says of some options."""
        for name in names:
            self.put(name, value_of(config, name))

    def _put_preferred(self) -> None:
        preferred = preferences().compute
        for name in ("device", "precision"):
            # "auto" is no preference: tasks whose results are compared have another.
            if (value := getattr(preferred, name)) != "auto":
                self.put(f"compute.{name}", value)


class CollapsibleForms(CollapsibleSection):
    """A form whose fields are made when it is first unfolded.

    Parameters
    ----------
    title : str
        Of the form.
    form : OptionForm
        What is folded.
    """

    def __init__(self, title: str, form: OptionForm) -> None:
        super().__init__(title)
        self._form = form
        # What is folded is as high as nothing, and yet shown to Qt.
        form.hide()
        self.addWidget(form)

    def expand(self, animate: bool = True) -> None:
        """Unfold it."""
        # How high it gets is measured before it is shown.
        self._form.make_fields()
        self._form.show()
        super().expand(animate)


def collapsible(groups: Mapping[str, OptionForm], titles: Mapping[str, str]) -> QWidget:
    """Put forms below each other, each folded under its title."""
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
    """Call an option by its name, for people."""
    text = name.rpartition(".")[2].replace("_", " ")
    text = text.replace(" um", " (µm)").replace("mpp", "(µm/px)")
    known = {"lr": "rate", "ratio": "ratio", "icc": "Colours by ICC profile"}
    text = " ".join(known.get(word, word) for word in text.split())
    return text[:1].upper() + text[1:]


def _group(name: str, titles: Mapping[str, str]) -> str:
    first, _, rest = name.partition(".")
    return first if rest and first in titles else ""
