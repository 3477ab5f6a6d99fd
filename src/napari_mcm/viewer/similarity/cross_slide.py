"""The present query on other slides: those open here, and those with features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.viewer.app.features import load_features
from napari_mcm.viewer.layers.metadata import SlideMetadata, layer_with

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.features.feature_set import FeatureSet
    from napari_mcm.core.heatmaps.similarity import Directions
    from napari_mcm.viewer.similarity.context import SimilarityContext

_TOP = 16


@dataclass(frozen=True)
class Found:
    """What a query finds on a slide.

    Attributes
    ----------
    name, fingerprint : str
        The slide.
    features : Path
        Its feature file.
    best : float
        Mean cosine of the patches that are most alike, at most 16.
    area_mm2 : float
        Area above the threshold, in mm².
    patches : int
        How many it has.
    """

    name: str
    fingerprint: str
    features: Path
    best: float
    area_mm2: float
    patches: int


class CrossSlideSearch:
    """Asks feature files of one encoder, and opens what they are of.

    Parameters
    ----------
    context : SimilarityContext
        The query and what belongs to it.

    Attributes
    ----------
    found : list of Found
        The slides, those with the most alike patches first.
    changed : Signal
        Others were found.
    """

    changed = Signal()

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        self._session = session
        self.found: list[Found] = []
        self._slot = "first"
        self._awaited: tuple[Found, Path] | None = None
        session.slide_changed.connect(self._slide_changed)

    def folder(self) -> Path | None:
        """Return where the features lie that the map was made from."""
        shown = self._context.queries.shown_map()
        loaded = self._session.features(shown[0]) if shown else None
        return loaded.path.parent if loaded is not None else None

    def search(self, folder: Path, threshold: float) -> None:
        """Search all feature files of a folder, in the background."""
        session = self._session
        shown = self._context.queries.shown_map()
        query = self._context.query
        one = query.answers.get(shown[0]) if query and shown else None
        loaded = session.features(shown[0]) if shown else None
        if one is None or loaded is None or shown is None:
            session.report_error("There is no map yet: click on the slide")
        elif not session.jobs.status.busy:
            self._slot, directions = shown[0], one.directions
            encoder = loaded.index.features.encoder
            session.jobs.start(
                "Searching other slides",
                lambda: search(folder, encoder, directions, threshold),
                self._arrived,
            )

    def open(self, found: Found, slide: Path | None = None) -> None:
        """Show the query on a slide, which is opened if it is not yet.

        Parameters
        ----------
        found : Found
            The slide.
        slide : Path, optional
            Its pixels, where the user has said; otherwise looked for.
        """
        layers = self._session.layers.slides()
        facts = [SlideMetadata.of_layer(layer) for layer in layers]
        folders = [Path(one.path).parent for one in facts if one is not None]
        self._session.disk.submit(
            "similar slide",
            lambda: (
                layer_with(found.fingerprint, layers)
                or slide
                or find_slide(found, folders)
            ),
            lambda where: self._located(found, where),
            self._failed,
        )

    def _located(self, found: Found, where: Layer | Path) -> None:
        """Show the query on a layer, or open the file it is to be shown on."""
        session = self._session
        if isinstance(where, Path):
            self._awaited = found, where.absolute()
            session.open(str(where), self._forget)
        elif where in session.layers.slides():
            session.layers.bring_up(where)
            session.choose_slide(where)
            self._load(found)

    def _slide_changed(self) -> None:
        layer, metadata = self._session.slide, self._session.metadata
        if self._awaited is None or layer is None or metadata is None:
            return
        found, path = self._awaited
        if Path(metadata.path) == path:
            self._awaited = None
            self._session.layers.bring_up(layer)
            self._load(found)

    def _load(self, found: Found) -> None:
        session, metadata = self._session, self._session.metadata
        if session.features(self._slot) is not None or metadata is None:
            self._context.queries.rerun()
            return
        path, mpp = Path(metadata.path), metadata.mpp_override
        if not session.jobs.status.busy:
            session.run_features(
                f"Loading {found.features.name}",
                self._slot,
                lambda: load_features(found.features, path, mpp),
            )

    def _arrived(self, found: list[Found]) -> None:
        self.found = found
        plural = "slide has" if len(found) == 1 else "slides have"
        self._session.jobs.status.message = f"{len(found)} {plural} an answer"
        self.changed.emit()

    def _forget(self) -> None:
        self._awaited = None

    def _failed(self, problem: str) -> None:
        self._forget()
        self._session.report_error(problem)


def search(
    folder: Path, encoder: dict[str, object], directions: Directions, threshold: float
) -> Job[list[Found]]:
    """Ask all feature files of a folder that were made with an encoder.

    Parameters
    ----------
    folder : Path
        Of ``.features.zarr`` files.
    encoder : mapping
        What the features must have been made with.
    directions : ndarray of float32, shape (K, D)
        What is looked for.
    threshold : float
        What counts as alike, for the area.

    Returns
    -------
    list of Found
        Most alike first.
    """
    files = sorted(folder.glob("*.features.zarr"))
    found: list[Found] = []
    for number, file in enumerate(files):
        yield Progress("Searching slides", number, len(files), "slides")
        answer = yield from run_in_thread(
            "Searching slides", _run_query, file, encoder, directions, threshold
        )
        if isinstance(answer, str):
            yield Note(f"{file.name}: {answer}")
        else:
            found.append(answer)
    return sorted(found, key=lambda one: -one.best)


def find_slide(found: Found, folders: Sequence[Path]) -> Path:
    """Find the pixels that features were made from, beside slides that are open.

    Raises
    ------
    FeatureError
        If no file there is that slide.
    """
    from napari_mcm.core.errors import FeatureError, McmError
    from napari_mcm.core.slides import open_slide

    near = [found.features.parent, *found.features.parents[1:3], *folders]
    for folder in dict.fromkeys(near):
        for file in sorted(folder.glob(f"{escape(found.name)}*")):
            if file.name.endswith(".features.zarr"):
                continue
            try:
                with open_slide(file) as slide:
                    if slide.fingerprint == found.fingerprint:
                        return file
            except McmError:
                continue
    raise FeatureError(
        f"slide {found.name} is not in {' or '.join(str(f) for f in folders)}",
        hint="Open it yourself: the query is then shown on it",
    )


def _run_query(
    file: Path, encoder: dict[str, object], directions: Directions, threshold: float
) -> Found | str:
    """Ask one file; gives a line where it cannot be asked."""
    from napari_mcm.core.errors import McmError
    from napari_mcm.core.features import read_features
    from napari_mcm.core.heatmaps import SimilarityIndex, heatmap_of
    from napari_mcm.core.heatmaps.query import fingerprint_of

    try:
        features: FeatureSet = read_features(file)
        wanted = fingerprint_of(encoder)
        if not wanted or fingerprint_of(features.encoder) != wanted:
            return "made with another encoder, skipped"
        heatmap = heatmap_of(SimilarityIndex(features), directions, "")
    except McmError as error:
        return str(error)
    best = heatmap.values[heatmap.best(_TOP)]
    if not len(best):
        return "has no features"
    slide = heatmap.grid.slide
    return Found(
        str(slide.get("name", file.name)),
        str(slide.get("fingerprint", "")),
        file,
        float(best.mean()),
        heatmap.area_mm2(threshold),
        len(features),
    )
