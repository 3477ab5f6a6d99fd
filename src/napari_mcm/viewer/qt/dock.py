"""What all dock widgets of this plugin have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING
from weakref import WeakMethod, ref

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QDockWidget,
    QFrame,
    QMainWindow,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.app.session import session_of
from napari_mcm.viewer.qt.close_guard import guard_dock, guard_window
from napari_mcm.viewer.qt.helpers import connect, note, reach_after, when_destroyed
from napari_mcm.viewer.qt.job_bar import JobBar

if TYPE_CHECKING:
    import napari


Parts = Sequence[QWidget]
WIDTH = 330


class Column(QScrollArea):
    """Parts below each other, that scroll up and down; never narrower than they are.

    They come into sight one after the other, and the window listens in between: to
    style and lay out all at once would hold it up for 100 ms.

    Parameters
    ----------
    parts : sequence of QWidget
        From the top down.
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
        # A part without a parent would be a window; one in here costs nothing yet.
        self._aside = QWidget(inner)
        self._aside.hide()
        for part in parts:
            part.setParent(self._aside)
        self.setWidget(inner)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._lay_next)
        self._soon.start(0)

    def _lay_next(self) -> None:
        if self._waiting:
            part = self._waiting.pop(0)
            self._column.insertWidget(self._column.count() - 1, part)
            self._soon.start(0)
        else:
            # A window that is not shown tells of the first part only.
            self._fit()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Follow the content, which needs more room or less as it changes."""
        done = bool(super().eventFilter(watched, event))
        changed = event is not None and event.type() == QEvent.Type.LayoutRequest
        if changed and watched is self.widget():
            self._fit()
        return done

    def _fit(self) -> None:
        inner, bar = self.widget(), self.verticalScrollBar()
        if inner is not None and bar is not None:
            self.setMinimumWidth(
                inner.minimumSizeHint().width() + bar.sizeHint().width()
            )


class Tab(QWidget):
    """A page of parts that are made when it is first turned to.

    Parameters
    ----------
    parts : callable
        Makes them; called once.
    """

    def __init__(self, parts: Callable[[], Parts]) -> None:
        super().__init__()
        # A method of the widget that this is a page of would hold it: PySide6 lets nobody
        # collect such a ring.
        self._parts: Callable[[], Callable[[], Parts] | None] | None = (
            WeakMethod(parts) if isinstance(parts, MethodType) else lambda: parts
        )
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)

    def make(self) -> None:
        """Make the parts, unless they are there."""
        asked, self._parts = self._parts, None
        if asked is not None and (parts := asked()) is not None:
            content = Column(parts())
            self._column.addWidget(content)
            content.show()
            reach_after(self, [content])


class DockedWidget(QWidget):
    """A scrolled column of parts, over a line for problems and the running job.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.session = session = session_of(napari_viewer)
        self.problem = note()
        self.job = JobBar(session.jobs)
        self._settling = QTimer(self)
        self._settling.setSingleShot(True)
        self._settling.timeout.connect(self._join_others)
        self.say("")
        connect(session.error_reported, self._show_error)
        connect(session.slide_changed, self._clear)
        connect(session.jobs.status.events.state, self._clear)
        # A closed dock unparents the widget; a closed viewer destroys it.
        user, known = id(self), ref(session)

        def leave() -> None:
            if (alive := known()) is not None:
                alive.leave(user)

        when_destroyed(self, leave)
        session.enter(user)

    def stack(self, parts: Parts) -> None:
        """Put the parts below each other, scrolled where the dock is too low."""
        self._lay(Column(parts))

    def stack_tabs(
        self, groups: Mapping[str, Parts | Callable[[], Parts]]
    ) -> QTabWidget:
        """Put groups of parts, or what makes them when turned to, behind tabs."""
        tabs = QTabWidget()
        tabs.setAccessibleName(f"Steps: {', '.join(groups)}")
        for name, parts in groups.items():
            tabs.addTab(Tab(parts) if callable(parts) else Column(parts), name)

        def turned(number: int) -> None:
            if isinstance(page := tabs.widget(number), Tab):
                page.make()

        tabs.currentChanged.connect(turned)
        turned(0)
        self._lay(tabs)
        return tabs

    def _lay(self, content: QWidget) -> None:
        outer = QVBoxLayout(self)
        outer.addWidget(content, 1)
        outer.addWidget(self.problem)
        # Always in sight, whatever the tab and however far it is scrolled.
        outer.addWidget(self.job)

    def sizeHint(self) -> QSize:
        """Ask for a dock in which most lines fit."""
        return QSize(WIDTH, super().sizeHint().height())

    def _join_others(self) -> None:
        """Become a tab of the docks that are there: below each other all are too low.

        The manifest asks for tabs, which napari does not do yet.
        """
        dock, window = self.parentWidget(), self.window()
        if not isinstance(dock, QDockWidget) or not isinstance(window, QMainWindow):
            return
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
            # It would tell napari where it is put, which is where it was put just now:
            # napari would write all its settings again.
            blocked = dock.blockSignals(True)
            window.tabifyDockWidget(others[-1], dock)
            dock.blockSignals(blocked)
            dock.show()
            dock.raise_()

    def say(self, problem: str) -> None:
        """Show one line about what went wrong; an empty one takes it away."""
        self.problem.setText(problem)
        self.problem.setVisible(bool(problem))

    def _show_error(self) -> None:
        self.say(self.session.problem)

    def _clear(self) -> None:
        self.say("")

    def event(self, event: QEvent | None) -> bool:
        """Notice being docked and undocked: closing a dock tells nothing else."""
        if event is None or not hasattr(self, "session"):
            return bool(super().event(event))
        if event.type() == QEvent.Type.ParentChange:
            user = id(self)
            if self.parent() is None:
                self.session.leave(user)
            else:
                self.session.enter(user)
                guard_dock(self.parentWidget(), self.session, user)
                # Where it is put is not settled yet: napari lays the dock after this.
                self._settling.start(0)
        elif event.type() == QEvent.Type.Show:
            guard_window(self.window(), self.session)
        return bool(super().event(event))
