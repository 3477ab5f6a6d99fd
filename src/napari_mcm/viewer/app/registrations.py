"""The registrations of the open slides: kept in files beside them, and found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.errors import McmError, RegistrationError
from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.layers.metadata import slide_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.registration import Registration, SectionMap
    from napari_mcm.core.slides import Slide
    from napari_mcm.viewer.app.background import BackgroundWorker

ENDING = ".registration.npz"

Pair = frozenset[str]
"""Two slides, by the unique ids of their layers."""


@dataclass(frozen=True, eq=False)
class KnownRegistration:
    """A registration of two open slides.

    Attributes
    ----------
    registration : Registration
        The registration.
    path : Path or None
        Its file; None until it is written.
    maps : mapping
        Map from each slide to the other, by the unique id of the layer it starts from.
    """

    registration: Registration
    path: Path | None
    maps: Mapping[str, SectionMap] = field(default_factory=dict)


class Registrations:
    """The registrations of pairs of slides in one viewer.

    Each is saved in the folder of the first slide, and is there again when both slides
    are open again.

    Parameters
    ----------
    disk : BackgroundWorker
        Thread that reads and writes files.
    report_error : callable
        Called with a one-line message if a file cannot be read or written.

    Attributes
    ----------
    lookup : callable or None
        Called in a thread with the fingerprints of two slides; returns the file that the
        open project has of them, or None.
    changed : Signal
        Emitted when a registration was added or found.
    kept : Signal
        Emitted with a registration and its file when it is in a file.
    """

    changed = Signal()
    kept = Signal(object, object)

    def __init__(
        self, disk: BackgroundWorker, report_error: Callable[[str], None]
    ) -> None:
        self._disk, self._report_error = disk, report_error
        self._known: dict[Pair, KnownRegistration] = {}
        self._sought: set[Pair] = set()
        self.lookup: Callable[[str, str], Path | None] | None = None

    def of(self, one: Layer | None, other: Layer | None) -> KnownRegistration | None:
        """Return the registration of two slides, in whichever order; None without one."""
        if one is None or other is None:
            return None
        return self._known.get(_pair(one, other))

    def map(self, source: Layer | None, target: Layer | None) -> SectionMap | None:
        """Return the map from one slide to another; None if they are not registered."""
        known = self.of(source, target)
        return None if known is None else known.maps.get(str(source.unique_id))  # type: ignore[union-attr]

    def find(self, one: Layer, other: Layer) -> None:
        """Look for a stored registration of two slides in the background, once."""
        slides = slide_of(one), slide_of(other)
        pair = _pair(one, other)
        if pair in self._sought or slides[0] is None or slides[1] is None:
            return
        self._sought.add(pair)
        self._disk.submit(
            f"registration {sorted(pair)}",
            partial(_find, slides[0], slides[1], self.lookup),
            partial(self._found, one, other),
            self._report_error,
        )

    def look_again(self) -> None:
        """Look for those that were not found once more, as in a project just opened."""
        self._sought &= self._known.keys()
        self.changed.emit()

    def add(
        self, one: Layer, other: Layer, registration: Registration, mapping: SectionMap
    ) -> None:
        """Take a new registration of two slides, and save it in the background.

        Parameters
        ----------
        one, other : Layer
            Layers of the slides.
        registration : Registration
            Of these slides.
        mapping : SectionMap
            Its map from the first layer to the second.
        """
        self._use(one, other, _Found(registration, mapping, None))
        first, second = (other, one) if mapping.backwards else (one, other)
        self._disk.submit(
            f"save registration {sorted(_pair(one, other))}",
            partial(_store, registration, slide_of(first), slide_of(second)),
            partial(self._stored, one, other, registration, mapping),
            self._report_error,
        )

    def load(self, one: Layer, other: Layer, path: Path) -> None:
        """Read a registration of two slides from a file in the background.

        Parameters
        ----------
        one, other : Layer
            Layers of the slides. A registration of other slides is refused.
        path : Path
            The file.
        """
        slides = slide_of(one), slide_of(other)
        if slides[0] is not None and slides[1] is not None:
            self._disk.submit(
                f"registration {sorted(_pair(one, other))}",
                partial(_load, path, slides[0], slides[1]),
                partial(self._found, one, other),
                self._report_error,
            )

    def save(self, one: Layer, other: Layer, path: Path) -> None:
        """Write a copy of a registration to a file in the background."""
        if (known := self.of(one, other)) is not None:
            self._disk.submit(
                f"copy {path}",
                partial(_write, path, known.registration),
                lambda _: None,
                self._report_error,
            )

    def forget(self, one: Layer, other: Layer) -> None:
        """Drop the registration of two slides; its file stays."""
        if self._known.pop(_pair(one, other), None) is not None:
            self.changed.emit()

    def _found(self, one: Layer, other: Layer, found: _Found | None) -> None:
        if found is not None:
            self._use(one, other, found)
            self.kept.emit(found.registration, found.path)

    def _stored(
        self,
        one: Layer,
        other: Layer,
        registration: Registration,
        mapping: SectionMap,
        path: Path,
    ) -> None:
        known = self.of(one, other)
        if known is not None and known.registration is registration:
            self._use(one, other, _Found(registration, mapping, path))
        self.kept.emit(registration, path)

    def _use(self, one: Layer, other: Layer, found: _Found) -> None:
        there = found.mapping
        maps = {str(one.unique_id): there, str(other.unique_id): there.inverse}
        known = KnownRegistration(found.registration, found.path, maps)
        self._known[_pair(one, other)] = known
        self.changed.emit()


@dataclass(frozen=True, eq=False)
class _Found:
    """A registration, its map from the first of two slides, and its file."""

    registration: Registration
    mapping: SectionMap
    path: Path | None


def registration_path(first: Slide, second: Slide) -> Path:
    """Return the file in which a registration of two slides is kept.

    Parameters
    ----------
    first, second : Slide
        The slides. Two slides may have the same name: their fingerprints tell them apart.
    """
    marks = f"{first.fingerprint[:6]}-{second.fingerprint[:6]}"
    name = f"{first.name} to {second.name} {marks}{ENDING}"
    return writable_base(Path(first.path)) / name


def _pair(one: Layer, other: Layer) -> Pair:
    return frozenset((str(one.unique_id), str(other.unique_id)))


def _store(
    registration: Registration, first: Slide | None, second: Slide | None
) -> Path:
    assert first is not None and second is not None
    path = registration_path(first, second)
    _write(path, registration)
    return path


def _write(path: Path, registration: Registration) -> None:
    from napari_mcm.core.registration import write_registration

    write_registration(path, registration)


def _load(path: Path, one: Slide, other: Slide) -> _Found:
    from napari_mcm.core.registration import read_registration, section_map

    registration = read_registration(path)
    return _Found(registration, section_map(registration, one, other), path)


def _find(
    one: Slide, other: Slide, lookup: Callable[[str, str], Path | None] | None
) -> _Found | None:
    """Return the stored registration of two slides, in whichever order it was made."""
    try:
        marks = one.fingerprint, other.fingerprint
    except McmError:
        # Without its file, a slide cannot be identified.
        return None
    paths = [registration_path(one, other), registration_path(other, one)]
    if lookup is not None and (listed := lookup(*marks)) is not None:
        paths.append(listed)
    for path in paths:
        if path.exists():
            try:
                return _load(path, one, other)
            except RegistrationError as error:
                raise RegistrationError(
                    error.what, path, "Register the sections again"
                ) from None
    return None
