"""Which feature files an atlas is made of: the slide's, the project's, or a folder's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_mcm.core.features.format import SUFFIX, attributes_of
from napari_mcm.viewer.app.features import SLOTS, LoadedFeatures
from napari_mcm.viewer.app.shared_query import encoder_key
from napari_mcm.viewer.project.controller import project_of

if TYPE_CHECKING:
    from napari_mcm.core.features.feature_set import FeatureSet
    from napari_mcm.viewer.app.session import Session

Source = Literal["slide", "project", "folder"]

SOURCES: tuple[Source, ...] = ("slide", "project", "folder")


@dataclass(frozen=True, eq=False)
class Found:
    """Features for an atlas.

    Attributes
    ----------
    files : tuple of Path
        Feature files.
    loaded : dict of Path to FeatureSet
        Those in memory.
    """

    files: tuple[Path, ...]
    loaded: dict[Path, FeatureSet]


def reference_features(session: Session) -> LoadedFeatures | None:
    """Return the features of the current slide that say which encoder is meant."""
    slots = (session.features(slot) for slot in SLOTS)
    return next((one for one in slots if one is not None), None)


def finder(
    session: Session, source: Source, one: LoadedFeatures
) -> Callable[[], Found]:
    """Return a function that finds the features of a source, to be called in a thread.

    Parameters
    ----------
    session : Session
        Session of the viewer; it is asked now.
    source : {"slide", "project", "folder"}
        Which features.
    one : LoadedFeatures
        The current slide's.
    """
    encoder = encoder_key(one.index.features.encoder)
    loaded = {
        other.path.absolute(): other.index.features
        for other in session.all_features()
        if encoder_key(other.index.features.encoder) == encoder
    }
    path = one.path.absolute()
    if source == "slide":
        return lambda: Found((path,), {path: loaded[path]})
    if source == "folder":
        return lambda: Found(_in_folder(path, encoder), loaded)
    project = project_of(session).project
    marks = {slide.fingerprint for slide in project.slides if slide.fingerprint}
    marks |= {_slide_of(features) for features in loaded.values()}
    stored = [
        Path(file.absolute)
        for slide in project.slides
        for file in slide.state.features.values()
        if file.absolute and file.encoder == encoder
    ]
    folders = [path.parent, *(file.parent for file in stored)]

    def find() -> Found:
        beside = [file for folder in dict.fromkeys(folders) for file in _listed(folder)]
        files: dict[str, Path] = {}
        for file, features in loaded.items():
            files.setdefault(_slide_of(features), file)
        for file in (*stored, *beside):
            mark = _mark_of(file, encoder)
            if mark in marks:
                files.setdefault(mark, file.absolute())
        chosen = sorted(files.values(), key=lambda file: file.name)
        return Found(tuple(chosen), loaded)

    return find


def _in_folder(path: Path, encoder: str) -> tuple[Path, ...]:
    files = [file for file in _listed(path.parent) if _mark_of(file, encoder)]
    return tuple(dict.fromkeys([*files, path])) if path not in files else tuple(files)


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return sorted(folder.absolute().glob(f"*{SUFFIX}"))
    except OSError:
        return []


def _mark_of(file: Path, encoder: str) -> str:
    """Return the slide of a finished file of an encoder; empty for any other file."""
    attributes = attributes_of(file)
    try:
        same = encoder_key(attributes["encoder"]) == encoder
        complete = attributes["complete"] is True
        mark = str(attributes["grid"]["slide"]["fingerprint"])
    except (KeyError, TypeError, AttributeError):
        return ""
    return mark if same and complete else ""


def _slide_of(features: FeatureSet) -> str:
    return str(features.grid.slide.get("fingerprint") or "")
