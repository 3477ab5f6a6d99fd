"""What the dock *Classes* adds to a session: labels, classifier, maps and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.canvas.keys import KEYS
from napari_mcm.viewer.labelling.class_maps import ClassMaps
from napari_mcm.viewer.labelling.controller import LabelController
from napari_mcm.viewer.labelling.cursor_class import CursorClass
from napari_mcm.viewer.labelling.fitting import ClassifierController
from napari_mcm.viewer.labelling.keyboard import LabelKeyboard
from napari_mcm.viewer.labelling.suggestions import SuggestionController
from napari_mcm.viewer.labelling.trust import TrustController
from napari_mcm.viewer.layers.early_slicing import canvas_of
from napari_mcm.viewer.project.controller import project_of


class LabellingContext:
    """The labels of one viewer, and the objects that change or show them.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    classifier : ClassifierController
        The classifier of the current labels.
    maps : ClassMaps
        The map of classes, and frames around labels.
    labels : LabelController
        What digits, lasso and menus label.
    suggestions : SuggestionController
        Patches to label next.
    trust : TrustController
        Accuracy, and whether labels still change the map.
    at_cursor : CursorClass
        The class under the cursor, in napari's status bar.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        # It keeps the labels with the slides.
        project_of(session)
        self.classifier = classifier = ClassifierController(session)
        self.maps = ClassMaps(session, classifier)
        self.labels = LabelController(session, classifier)
        self.suggestions = SuggestionController(session, classifier, self.labels)
        self.trust = TrustController(session, classifier)
        self.at_cursor = CursorClass(self)
        self.maps.changed.connect(self.at_cursor.refresh)
        classifier.fitted.connect(self._name_class)
        self._keyboard: LabelKeyboard | None = None
        self._bound: dict[Any, Any] = {}
        session.entered.connect(self._listen)
        session.left.connect(self._stop_listening)
        self._listen()

    def _listen(self) -> None:
        self.at_cursor.attach()
        canvas = canvas_of(self.session.viewer)
        if canvas is None or self._keyboard is not None:
            return
        self._keyboard = LabelKeyboard(
            canvas.native, self.labels, self.suggestions, self._is_free
        )
        viewer, before = self.session.viewer, dict(self.session.viewer.keymap)
        order = self.session.order
        for key, call in ((KEYS["undo"], order.undo), (KEYS["redo"], order.redo)):
            viewer.bind_key(key, _press(call), overwrite=True)
        now = dict(viewer.keymap)
        self._bound = {
            key: one for key, one in now.items() if before.get(key) is not one
        }

    def _name_class(self, _fit: object) -> None:
        self.at_cursor.refresh()

    def _stop_listening(self) -> None:
        self.at_cursor.detach()
        if self._keyboard is not None:
            self._keyboard.remove()
            self._keyboard = None
        keymap = self.session.viewer.keymap
        for key, call in self._bound.items():
            if keymap.get(key) is call:
                del keymap[key]
        self._bound = {}

    def _is_free(self) -> bool:
        """Return whether no layer is being painted or edited."""
        active = self.session.layers.active
        mode = "pan_zoom" if active is None else str(active.mode)
        return mode == "pan_zoom" and self.session.viewer.dims.ndisplay == 2


def labelling_of(session: Session) -> LabellingContext:
    """Return the labelling context of a session, and create it on first use."""
    return session.part(LabellingContext)


def _press(call: Callable[[], None]) -> Callable[[Any], None]:
    def press(viewer: Any) -> None:
        call()

    return press
