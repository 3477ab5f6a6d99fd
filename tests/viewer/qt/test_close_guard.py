"""Closing a window while a job runs: asked first, and the job is stopped only after."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import napari
import numpy as np
import pytest
from napari._qt import qt_main_window
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QDialog, QMainWindow

from napari_mcm.core.runtime.jobs import Job, Progress
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.app.session import Session, session_of
from napari_mcm.viewer.qt import close_guard as closing
from tests.viewer.conftest import wait_until

CLOSE, EXIT = "Ctrl+W", "Ctrl+Q"
MakeViewer = Callable[..., Any]


class Questions:
    """What is asked, in order, and what is answered: ours, and napari's own."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stop = self.close = True
        self.quits = 0

    def ours(self, _parent: Any, title: str) -> bool:
        self.asked.append(title)
        return self.stop

    def dialog(self, *_: Any, **__: Any) -> Any:
        """Stand for napari's dialog, which is made before it is shown."""
        return self

    def exec_(self) -> QDialog.DialogCode:
        self.asked.append("napari")
        code = QDialog.DialogCode
        return code.Accepted if self.close else code.Rejected

    def quit(self) -> None:
        """Stand for the end of the program: all viewers are closed."""
        self.quits += 1


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Questions:
    """Everything that is asked, none of it on the screen."""
    made = Questions()
    monkeypatch.setattr(closing, "ask_to_stop", made.ours)
    monkeypatch.setattr(qt_main_window, "ConfirmCloseDialog", made.dialog)
    monkeypatch.setattr(qt_main_window, "quit_app_", made.quit)
    settings = qt_main_window.get_settings().application
    monkeypatch.setattr(settings, "confirm_close_window", True)
    return made


def working(make: MakeViewer, title: str = "Waiting", layers: bool = True) -> Any:
    """Show a viewer with a widget whose job does not end by itself."""
    viewer = make(show=True)
    # The fixture closes it once more.
    kept = Qt.WidgetAttribute.WA_DeleteOnClose
    viewer.window._qt_window.setAttribute(kept, False)
    if layers:
        viewer.add_image(np.zeros((8, 8)))
    _, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Features")
    QApplication.processEvents()

    def endless() -> Job[None]:
        while True:
            yield Progress("Waiting", 0, None)
            time.sleep(0.01)

    widget.session.jobs.start(title, endless, lambda _: None)
    return viewer


def press(viewer: Any, keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trigger the entry of the menu *File* that has a shortcut."""
    # There is no window manager that makes a window the active one.
    monkeypatch.setattr(QApplication, "activeWindow", lambda: viewer.window._qt_window)
    entries = viewer.window.file_menu.actions()
    (entry,) = [one for one in entries if one.shortcut().toString() == keys]
    entry.trigger()


def end(session: Session) -> None:
    """Stop what runs, so that it does not outlive the test."""
    session.jobs.close()
    wait_until(lambda: not session.jobs.status.busy)
    session.disk.wait()


@pytest.mark.parametrize("keys", [CLOSE, EXIT])
@pytest.mark.parametrize("layers", [True, False])
def test_a_key_that_closes_asks_and_is_refused(
    make_napari_viewer: MakeViewer,
    plugin: Any,
    questions: Questions,
    monkeypatch: pytest.MonkeyPatch,
    keys: str,
    layers: bool,
) -> None:
    viewer = working(make_napari_viewer, layers=layers)
    session, questions.stop = session_of(viewer), False
    press(viewer, keys, monkeypatch)
    assert questions.asked == ["Waiting"] and viewer.window._qt_window.isVisible()
    assert session.jobs.status.state is JobState.RUNNING and not questions.quits
    end(session)


@pytest.mark.parametrize("keys", [CLOSE, EXIT])
def test_a_job_has_kept_its_work_when_the_window_closes(
    make_napari_viewer: MakeViewer,
    plugin: Any,
    questions: Questions,
    monkeypatch: pytest.MonkeyPatch,
    keys: str,
) -> None:
    viewer = working(make_napari_viewer)
    session, window = session_of(viewer), viewer.window._qt_window
    press(viewer, keys, monkeypatch)
    # napari does not ask a second time.
    assert questions.asked == ["Waiting"] and not window.isVisible()
    assert session.jobs.status.state is JobState.CANCELLED
    assert questions.quits == (keys == EXIT)
    end(session)


def test_the_end_of_the_program_asks_for_the_jobs_of_all_viewers(
    make_napari_viewer: MakeViewer,
    plugin: Any,
    questions: Questions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = working(make_napari_viewer, "First")
    second = working(make_napari_viewer, "Second")
    questions.stop = False
    press(first, EXIT, monkeypatch)
    assert len(questions.asked) == 1 and not questions.quits
    questions.asked, questions.stop = [], True
    press(first, EXIT, monkeypatch)
    assert sorted(questions.asked) == ["First", "Second"]
    for viewer in (first, second):
        session = session_of(viewer)
        assert session.jobs.status.state is JobState.CANCELLED
        end(session)


def test_a_job_goes_on_where_the_title_bar_was_meant_otherwise(
    make_napari_viewer: MakeViewer, plugin: Any, questions: Questions
) -> None:
    class UserCloses(QCloseEvent):
        def spontaneous(self) -> bool:
            return True

    viewer = working(make_napari_viewer)
    session, window = session_of(viewer), viewer.window._qt_window
    questions.stop = False
    event = UserCloses()
    QApplication.sendEvent(window, event)
    assert questions.asked == ["Waiting"] and not event.isAccepted()
    assert session.jobs.status.state is JobState.RUNNING
    questions.asked, questions.stop = [], True
    event = UserCloses()
    QApplication.sendEvent(window, event)
    assert questions.asked == ["Waiting"] and event.isAccepted()
    assert session.jobs.status.state is JobState.CANCELLED
    end(session)


def test_a_script_is_not_asked(
    make_napari_viewer: MakeViewer, plugin: Any, questions: Questions
) -> None:
    viewer = working(make_napari_viewer)
    session = session_of(viewer)
    viewer.close()
    assert not questions.asked and viewer not in napari.Viewer._instances
    end(session)


def test_an_idle_window_closes_without_our_question(
    make_napari_viewer: MakeViewer,
    plugin: Any,
    questions: Questions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    viewer = working(make_napari_viewer)
    session, window = session_of(viewer), viewer.window._qt_window
    session.jobs.cancel()
    wait_until(lambda: not session.jobs.status.busy)
    press(viewer, CLOSE, monkeypatch)
    assert questions.asked == ["napari"] and not window.isVisible()
    end(session)


class Collector:
    """Takes the place of `gc`, whose objects the tests have frozen."""

    def __init__(self, frozen: int = 0) -> None:
        self.calls: list[str] = []
        self._frozen = frozen

    def get_freeze_count(self) -> int:
        return self._frozen

    def freeze(self) -> None:
        self.calls.append("freeze")

    def unfreeze(self) -> None:
        self.calls.append("unfreeze")


def test_the_collector_is_spared_while_the_last_window_closes(
    widget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    monkeypatch.setattr(closing, "gc", collector)
    monkeypatch.setattr(closing, "_LIVES_ON_MS", 20)
    window = widget.window()
    with closing._quitting([window]):
        assert collector.calls == ["freeze"]
    # A program that lives on collects garbage again.
    wait_until(lambda: collector.calls == ["freeze", "unfreeze"])


def test_the_collector_works_on_where_another_window_is_shown_or_objects_are_frozen(
    widget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for frozen, others in ((5, 0), (0, 1)):
        collector = Collector(frozen)
        monkeypatch.setattr(closing, "gc", collector)
        windows = [QMainWindow() for _ in range(others)]
        for window in windows:
            window.show()
        with closing._quitting([widget.window()]):
            assert collector.calls == []
        for window in windows:
            window.close()
