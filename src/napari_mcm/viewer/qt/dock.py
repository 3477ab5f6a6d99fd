"""The base class of the plugin's dock widgets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakMethod, ref

from qtpy.QtCore import QEvent, QObject, QPoint, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QApplication,
    QDockWidget,
    QFrame,
    QLabel,
    QMainWindow,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.app.first_dock import note_dock
from napari_mcm.viewer.app.imports import DISPLAY, import_in_background
from napari_mcm.viewer.app.jobs import place_of
from napari_mcm.viewer.app.session import session_of
from napari_mcm.viewer.canvas.tools import CanvasTools
from napari_mcm.viewer.qt.close_guard import guard_dock, guard_window
from napari_mcm.viewer.qt.helpers import connect, note, reach_after, when_destroyed
from napari_mcm.viewer.qt.job_bar import JobBar
from napari_mcm.viewer.qt.wheel_guard import WheelGuard

if TYPE_CHECKING:
    import napari


Parts = Sequence[QWidget]
"""Widgets of a column, from the top down."""
_PLUGIN = re.compile(r" \([^()]*\)$")
"""What napari adds to a dock's name: the plugin's name, or its display name."""
WIDTH = 330
"""Preferred width of a dock in pixels."""


class ScrollColumn(QScrollArea):
    """Widgets in a column that scrolls vertically, as wide as its widest widget.

    The widgets are laid out one after another, and Qt handles events in between: laying
    out all at once would freeze the window for 100 ms.

    Parameters
    ----------
    parts : sequence of QWidget
        The widgets, from the top down.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        inner = QWidget()
        self._column = QVBoxLayout(inner)
        self._column.setContentsMargins(0, 0, 4, 0)
        self._column.addStretch(1)
        self._waiting = list(parts)
        # A widget without a parent would become a window. In a hidden parent it is not
        # laid out yet.
        self._parking = QWidget(inner)
        self._parking.hide()
        for part in parts:
            part.setParent(self._parking)
        self.setWidget(inner)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._add_next)
        self._timer.start(0)
        self._revealed: QWidget | None = None
        self._reveal_timer = QTimer(self)
        self._reveal_timer.setSingleShot(True)
        self._reveal_timer.timeout.connect(self._reveal)

    def _add_next(self) -> None:
        if self._waiting:
            part = self._waiting.pop(0)
            self._column.insertWidget(self._column.count() - 1, part)
            self._timer.start(0)
        else:
            # A window that is not shown sends a layout request for the first part only.
            self._fit()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Adapt the minimum width when the layout of the content changes."""
        done = bool(super().eventFilter(watched, event))
        changed = event is not None and event.type() == QEvent.Type.LayoutRequest
        if changed and watched is self.widget():
            self._fit()
        return done

    def reveal(self, part: QWidget) -> None:
        """Scroll as far as it takes to see a part that has become higher.

        Parameters
        ----------
        part : QWidget
            A widget of the column. Of one that is too high, the top is shown.
        """
        self._revealed = part
        # Deferred: its layout comes first.
        self._reveal_timer.start(0)

    def _reveal(self) -> None:
        part, bar, inner = self._revealed, self.verticalScrollBar(), self.widget()
        port, self._revealed = self.viewport(), None
        if part is None or bar is None or inner is None or port is None:
            return
        QApplication.sendPostedEvents(None, QEvent.Type.LayoutRequest)
        top = part.mapTo(inner, QPoint()).y()
        lowest = min(top, top + part.height() - port.height())
        bar.setValue(min(max(bar.value(), lowest), top))

    def _fit(self) -> None:
        inner, bar = self.widget(), self.verticalScrollBar()
        if inner is not None and bar is not None:
            self.setMinimumWidth(
                inner.minimumSizeHint().width() + bar.sizeHint().width()
            )


class LazyTab(QWidget):
    """A tab whose widgets are created when it is first shown.

    Parameters
    ----------
    parts : callable
        Returns the widgets, from the top down; called once.
    """

    def __init__(self, parts: Callable[[], Parts]) -> None:
        super().__init__()
        # A method of the dock widget would keep that alive: under PySide6 such reference
        # cycles are never collected.
        self._parts: Callable[[], Callable[[], Parts] | None] | None = (
            WeakMethod(parts) if isinstance(parts, MethodType) else lambda: parts
        )
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)

    def make(self) -> None:
        """Create the widgets, unless they exist."""
        reference, self._parts = self._parts, None
        if reference is not None and (parts := reference()) is not None:
            content = ScrollColumn(parts())
            self._column.addWidget(content)
            content.show()
            reach_after(self, [content])


class DockedWidget(QWidget):
    """A dock widget: a scrolling column, an error message and the status of the job.

    It registers itself with the session of the viewer.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the widget is docked in.

    Attributes
    ----------
    session : Session
        Session of the viewer.
    problem : QLabel
        Error message.
    job : JobBar
        Status of the running job.
    needs : tuple of str
        Modules that the dock will need, which are imported in the background.
    is_first : bool
        Whether no dock opens with the next slide once this one was opened.
    folders : tuple of str
        Folders of the viewer whose jobs are the dock's; by default its own.
    """

    needs: ClassVar[tuple[str, ...]] = DISPLAY
    is_first: ClassVar[bool] = True
    folders: ClassVar[tuple[str, ...]] = ()

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.session = session = session_of(napari_viewer)
        self.problem = note()
        own = self.folders or (place_of(type(self).__module__),)
        self.job = JobBar(session.jobs, own)
        self._wheel_guard = WheelGuard(self)
        self._tabify_timer = QTimer(self)
        self._tabify_timer.setSingleShot(True)
        self._tabify_timer.timeout.connect(self._tabify)
        self._title_timer = QTimer(self)
        self._title_timer.setSingleShot(True)
        self._title_timer.timeout.connect(self._shorten_title)
        self.show_problem("")
        connect(session.error_reported, self._show_error)
        connect(session.slide_changed, self._clear)
        connect(session.slide_chosen, self.job.clear_outcome)
        connect(session.jobs.status.events.state, self._clear)
        # Closing a dock removes the widget's parent, closing the viewer destroys it.
        user, session_reference = id(self), ref(session)

        def leave() -> None:
            if (live_session := session_reference()) is not None:
                live_session.leave(user)

        when_destroyed(self, leave)
        session.enter(user)
        session.part(CanvasTools)
        needs = self.needs
        # Deferred: the dock itself comes first.
        QTimer.singleShot(0, lambda: import_in_background(needs))

    def stack(self, parts: Parts) -> None:
        """Arrange widgets in a column that scrolls if the dock is too low."""
        self.column = ScrollColumn(parts)
        self._lay_out(self.column)

    def stack_tabs(
        self, groups: Mapping[str, Parts | Callable[[], Parts]]
    ) -> QTabWidget:
        """Arrange groups of widgets in tabs.

        Parameters
        ----------
        groups : mapping
            Title of a tab to its widgets, or to a function that returns them when the
            tab is first shown.
        """
        tabs = QTabWidget()
        tabs.setAccessibleName(f"Steps: {', '.join(groups)}")
        for name, parts in groups.items():
            page = LazyTab(parts) if callable(parts) else ScrollColumn(parts)
            tabs.addTab(page, name)

        def shown(number: int) -> None:
            if isinstance(page := tabs.widget(number), LazyTab):
                page.make()

        tabs.currentChanged.connect(shown)
        shown(0)
        self._lay_out(tabs)
        return tabs

    def _lay_out(self, content: QWidget) -> None:
        outer = QVBoxLayout(self)
        outer.addWidget(content, 1)
        outer.addWidget(self.problem)
        # Outside the scroll area: always visible.
        outer.addWidget(self.job)

    def sizeHint(self) -> QSize:
        """Return the preferred size, wide enough for most lines."""
        return QSize(WIDTH, super().sizeHint().height())

    def _tabify(self) -> None:
        """Add the dock as a tab to other docks of the plugin in the same area.

        Below each other, all docks would be too low. The manifest requests tabs, but
        napari does not support that yet.
        """
        dock, window = self.parentWidget(), self.window()
        if not isinstance(dock, QDockWidget) or not isinstance(window, QMainWindow):
            return
        self._shorten_title()
        area = window.dockWidgetArea(dock)
        others = [
            other
            for other in window.findChildren(QDockWidget)
            if other is not dock
            and isinstance(other.widget(), DockedWidget)
            and not other.isFloating()
            and window.dockWidgetArea(other) == area
        ]
        if others and dock not in window.tabifiedDockWidgets(others[-1]):
            # Without blocking, the dock would signal its area, which does not change, and
            # napari would write all its settings again.
            blocked = dock.blockSignals(True)
            window.tabifyDockWidget(others[-1], dock)
            dock.blockSignals(blocked)
            dock.show()
            dock.raise_()

    def _shorten_title(self) -> None:
        """Leave the plugin out of the tab and the title bar, which would be cut.

        napari makes a new title bar with the full name when the dock floats.
        """
        dock = self.parentWidget()
        if isinstance(dock, QDockWidget):
            dock.setWindowTitle(_PLUGIN.sub("", dock.windowTitle()))
            label = getattr(dock.titleBarWidget(), "title", None)
            if isinstance(label, QLabel) and label.text() != dock.windowTitle():
                label.setText(dock.windowTitle())

    def show_problem(self, problem: str) -> None:
        """Show an error message; an empty one hides it."""
        self.problem.setText(problem)
        self.problem.setVisible(bool(problem))

    def _show_error(self) -> None:
        self.show_problem(self.session.problem)

    def _clear(self) -> None:
        self.show_problem("")

    def event(self, event: QEvent | None) -> bool:
        """Follow docking and undocking, of which Qt sends no other notification."""
        if event is None or not hasattr(self, "session"):
            return bool(super().event(event))
        if event.type() == QEvent.Type.ParentChange:
            user = id(self)
            if self.parent() is None:
                self.session.leave(user)
            else:
                self.session.enter(user)
                guard_dock(self.parentWidget(), self.session, user)
                # Deferred: napari places the dock only after this event.
                self._tabify_timer.start(0)
        elif event.type() == QEvent.Type.Show:
            self._title_timer.start(0)
            guard_window(self.window(), self.session)
            if self.is_first and (window := self.window()) is not None:
                note_dock(window)
        return bool(super().event(event))
