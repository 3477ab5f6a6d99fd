"""Feature files that are found when a slide opens, and loaded into the free slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from psygnal import Signal

from napari_mcm.core.features.lookup import (
    KnownFile,
    find_feature_files,
    newest_per_encoder,
)
from napari_mcm.core.runtime.jobs import run
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.features import (
    SLOTS,
    LoadedFeatures,
    encoder_label,
    load_features,
)
from napari_mcm.viewer.app.imports import EXTRACTING, import_in_background
from napari_mcm.viewer.app.persistence import FEATURES, FOLDER, recent, writable_base
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.metadata import slide_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.slides import Slide
    from napari_mcm.viewer.app.session import Session


class RememberedFile(NamedTuple):
    """A feature file that a slide was left with.

    Attributes
    ----------
    path : Path
        The file.
    label : str
        Display name of the encoder; "" for the one in the file.
    """

    path: Path
    label: str = ""


_T = TypeVar("_T")

_LOOK = "look for features"


class FoundFeatures:
    """Feature files of the active slide, found without PyTorch and loaded at once.

    Files count that lie where the plugin writes them, where it wrote or read some
    lately, and that are of this slide at its resolution. Where it is remembered which
    files the slide was left with, these are loaded. Otherwise the newest of each encoder
    fills a slot that is free, in the order in which they were made; of more encoders
    than slots, only the newest is loaded. The others are offered. Where none are found,
    PyTorch is imported in the background, as features will be computed.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    files : tuple of KnownFile
        Files of the active slide, the newest first, whether loaded or not.
    offered : tuple of KnownFile
        The newest file of each encoder that is in no slot of the active slide.
    loading : bool
        Whether files are looked for or loaded.
    remembered : callable or None
        Called with the layer of a slide; returns the files that it was left with, by
        slot, or None as long as that is not known: :meth:`fill` is called then.
    changed : Signal
        Emitted when any of these changed.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self._worker = BackgroundWorker("features")
        self._found: WeakKeyDictionary[Layer, tuple[KnownFile, ...]]
        self._found = WeakKeyDictionary()
        self._loading: set[str] = set()
        self._active: Layer | None = None
        self.remembered: (
            Callable[[Layer], Mapping[str, RememberedFile] | None] | None
        ) = None
        session.slide_changed.connect(self._slide_changed)
        session.features_changed.connect(self._features_changed)
        self._slide_changed()
        if session.slide is None:
            import_in_background(EXTRACTING)

    @property
    def files(self) -> tuple[KnownFile, ...]:
        """Files of the active slide, the newest first, whether loaded or not."""
        slide = self._session.slide
        return () if slide is None else self._found.get(slide, ())

    @property
    def offered(self) -> tuple[KnownFile, ...]:
        """The newest file of each encoder that is in no slot of the active slide."""
        loaded = self._loaded_paths()
        newest = newest_per_encoder(self.files)
        return tuple(one for one in newest if one.path.absolute() not in loaded)

    @property
    def loading(self) -> bool:
        """Whether files are looked for or loaded."""
        return bool(self._loading)

    def use(self, file: KnownFile, slot: str = SLOTS[0]) -> None:
        """Load a file into a slot of the active slide, in the background.

        Parameters
        ----------
        file : KnownFile
            One of `files`.
        slot : str
            One of :data:`~napari_mcm.viewer.app.features.SLOTS`.
        """
        chosen = RememberedFile(file.path, encoder_label(file.spec))
        self._load(chosen, slot, replace=True)

    def _slide_changed(self) -> None:
        """Look for files of a slide that became active, once its resolution is known."""
        session = self._session
        slide, metadata = session.slide, session.metadata
        if metadata is None or metadata.mpp is None:
            slide = None
        if slide is self._active:
            return
        self._active = slide
        # Of a slide that is no longer active, nothing is loaded.
        for key in self._loading:
            self._worker.drop(key)
        self._loading.clear()
        opened = slide_of(slide)
        if slide is not None and opened is not None:
            if slide in self._found:
                self.fill()
            else:
                self._look(slide, opened)
        self.changed.emit()

    def _look(self, slide: Layer, opened: Slide) -> None:
        chosen = preferences().output_folder

        def found(files: tuple[KnownFile, ...]) -> None:
            self._found[slide] = files
            if not files:
                import_in_background(EXTRACTING)
            self.fill()

        self._start(_LOOK, lambda: _find(opened, chosen), found)

    def fill(self) -> None:
        """Load files into the free slots of the active slide, once it is searched."""
        slide = self._session.slide
        if slide is None or slide not in self._found:
            return
        left = {} if self.remembered is None else self.remembered(slide)
        if left is None:
            return
        if not left:
            left = _choose(self._found[slide])
        loaded = self._loaded_paths()
        for slot, file in left.items():
            if file.path.absolute() not in loaded and self._is_free(slot):
                self._load(file, slot)

    def _load(self, file: RememberedFile, slot: str, replace: bool = False) -> None:
        session, slide = self._session, self._session.slide
        metadata, key = session.metadata, f"load {slot}"
        if slide is None or metadata is None or (key in self._loading and not replace):
            return
        path, mpp = Path(metadata.path), metadata.mpp_override

        def arrived(loaded: LoadedFeatures) -> None:
            # Meanwhile the user may have computed or loaded others.
            if slide is session.slide and (replace or self._is_free(slot)):
                session.set_features(slide, slot, loaded)

        self._start(
            key, lambda: run(load_features(file.path, path, mpp, file.label)), arrived
        )

    def _start(
        self, key: str, work: Callable[[], _T], then: Callable[[_T], None]
    ) -> None:
        self._loading.add(key)

        def ended(result: _T) -> None:
            self._loading.discard(key)
            then(result)
            self.changed.emit()

        def failed(problem: str) -> None:
            self._loading.discard(key)
            self._session.report_error(problem)
            self.changed.emit()

        self._worker.submit(key, work, ended, failed)
        self.changed.emit()

    def _is_free(self, slot: str) -> bool:
        return self._session.features(slot) is None

    def _loaded_paths(self) -> set[Path]:
        loaded = (self._session.features(slot) for slot in SLOTS)
        return {one.path.absolute() for one in loaded if one is not None}

    def _features_changed(self, _slot: str) -> None:
        self.changed.emit()


def _choose(files: tuple[KnownFile, ...]) -> dict[str, RememberedFile]:
    """Choose files for the slots, in the order in which they were made."""
    newest = newest_per_encoder(files)
    chosen = newest[::-1] if len(newest) <= len(SLOTS) else newest[:1]
    labelled = [RememberedFile(one.path, encoder_label(one.spec)) for one in chosen]
    return dict(zip(SLOTS, labelled, strict=False))


def _find(slide: Slide, chosen: Path | None) -> tuple[KnownFile, ...]:
    """Find the files of a slide; called in a thread."""
    files = recent(FEATURES)
    used = [path.parent for path in files]
    folders = [
        slide.path.absolute().parent / FOLDER,
        writable_base(slide.path),
        *([chosen] if chosen is not None else []),
        *used,
        # Encoders have folders of their own, beside each other.
        *(folder.parent for folder in used),
    ]
    return find_feature_files(slide, dict.fromkeys(folders), files)


def found_features(session: Session) -> FoundFeatures:
    """Return the found features of a session, and begin to look on first use.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """
    return session.part(FoundFeatures)
