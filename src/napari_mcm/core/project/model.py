"""What a project holds, and its slides' states."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.heatmaps.query import Number, Outline, Place, Vector
from napari_mcm.core.project.results import ResultRow, Text

FORMAT: Literal["napari-mcm project"] = "napari-mcm project"

MAJOR, MINOR = 1, 0
"""Version of the format. A reader of another minor version keeps what it does not know."""

_MOST_SLIDES, _MOST_ROWS, _MOST_POINTS = 200_000, 200_000, 10_000

_MOST_SLOTS = 16

Fingerprint = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{0,128}$")]
"""Hash of a file's content, which also names files: no separators of paths."""


class _Part(BaseModel):
    # Fields of later minor versions are kept and written back.
    model_config = ConfigDict(extra="allow", frozen=True)


class Located(_Part):
    """Name a file or folder in two ways, so that a project can move with it."""

    path: str = Field(
        "",
        max_length=4096,
        description="Path relative to the project's folder, with slashes.",
    )
    absolute: str = Field(
        "", max_length=4096, description="Absolute path, where the other one fails."
    )


class SavedFeatures(Located):
    """Name a feature file, and what it must hold."""

    label: Text = Field("", description="Display name of the encoder.")
    encoder: Text = Field("", description="Fingerprint of the encoder.")
    grid: Text = Field("", description="Fingerprint of the patch grid.")


class SavedContext(_Part):
    """State over which patches features are averaged."""

    radius: int = Field(0, ge=0, le=100, description="In patches; 0 for none.")
    weights: Text = Field("uniform", description="How patches around are weighted.")

    @classmethod
    def of(cls, neighbourhood: NeighbourhoodConfig) -> SavedContext:
        """Return a neighbourhood as a project stores it.

        Parameters
        ----------
        neighbourhood : NeighbourhoodConfig
            The neighbourhood.

        Returns
        -------
        SavedContext
        """
        return cls(radius=neighbourhood.radius, weights=neighbourhood.weights)

    @property
    def neighbourhood(self) -> NeighbourhoodConfig | None:
        """Return the neighbourhood; None if this version does not know it.

        Returns
        -------
        NeighbourhoodConfig or None
        """
        try:
            return NeighbourhoodConfig.model_validate(
                {"radius": self.radius, "weights": self.weights}
            )
        except ValueError:
            return None


class SavedDirections(_Part):
    """State a query in the feature space of one encoder."""

    fingerprint: Text = Field(description="Fingerprint of the encoder.")
    vectors: tuple[Vector, ...] = Field(
        min_length=1,
        max_length=_MOST_POINTS,
        description="Of which the nearest counts.",
    )


class SavedQuery(_Part):
    """Store a query: its examples, and its vectors where these are on another slide."""

    slide: Fingerprint = Field("", description="Fingerprint of the examples' slide.")
    name: Text = Field("", description="Name of that slide.")
    like: tuple[Place, ...] = Field((), max_length=_MOST_POINTS)
    unlike: tuple[Place, ...] = Field((), max_length=_MOST_POINTS)
    regions: tuple[Outline, ...] = Field((), max_length=_MOST_POINTS)
    pool: Text = Field("mean", description="How similar examples are combined.")
    context: SavedContext = SavedContext()
    directions: tuple[SavedDirections, ...] = Field((), max_length=64)


class SavedView(_Part):
    """State which part of a slide is on the screen, and how large."""

    centre: Place = Field(description="Centre (x, y) in level-0 pixels.")
    zoom: Number = Field(gt=0, description="Screen pixels per level-0 pixel.")


class SlideState(_Part):
    """What comes back when a slide is opened again."""

    features: dict[Text, SavedFeatures] = Field(
        {}, max_length=_MOST_SLOTS, description="Feature file of each slot."
    )
    query: SavedQuery | None = Field(None, description="The query on this slide.")
    threshold: Number | None = Field(None, description="Smallest cosine that counts.")
    shown: Text = Field("", description="Slot of the map that is visible.")
    context: SavedContext | None = Field(None, description="Of the maps.")
    view: SavedView | None = Field(None, description="What is on the screen.")


class ProjectSlide(Located):
    """Describe one slide of a project."""

    name: Text = Field("", description="Display name.")
    fingerprint: Fingerprint = Field("", description="Hash of the content.")
    file_size: int = Field(0, ge=0, description="Of its file in bytes; 0 for a folder.")
    mpp: Number | None = Field(
        None, gt=0, description="Microns per level-0 pixel that the user entered."
    )
    tissue: Located | None = Field(None, description="Mask that the user drew.")
    labels: dict[Text, Any] = Field({}, description="Labels of patches, by class.")
    state: SlideState = SlideState()


class ProjectRun(Located):
    """Name the folder of a run that belongs to a project."""

    kind: Text = Field("", description="Verb that made it.")


class ProjectRegistration(Located):
    """Name the file of a registration of two slides of a project."""

    first: Fingerprint = Field("", description="Fingerprint of the first section.")
    second: Fingerprint = Field("", description="Fingerprint of the second section.")


class Project(_Part):
    """Slides that belong together, with what was asked of them and found.

    It is immutable: a change makes a copy, so that a thread can write what is held.
    """

    format: Literal["napari-mcm project"]
    version: str = Field(pattern=r"^\d{1,4}\.\d{1,4}$")
    slides: tuple[ProjectSlide, ...] = Field((), max_length=_MOST_SLIDES)
    classes: tuple[dict[Text, Any], ...] = Field((), max_length=1000)
    runs: tuple[ProjectRun, ...] = Field((), max_length=10_000)
    results: tuple[ResultRow, ...] = Field((), max_length=_MOST_ROWS)
    registrations: tuple[ProjectRegistration, ...] = Field((), max_length=10_000)
    folders: tuple[Text, ...] = Field(
        (), max_length=100, description="Where moved slides were found."
    )
    current: Fingerprint = Field("", description="The slide on the screen.")

    @classmethod
    def new(cls) -> Project:
        """Return an empty project of this version.

        Returns
        -------
        Project
        """
        return cls(format=FORMAT, version=f"{MAJOR}.{MINOR}")

    def index_of(self, fingerprint: str) -> int | None:
        """Return the position of a slide; None if it is not in the project.

        Parameters
        ----------
        fingerprint : str
            Fingerprint of the slide.

        Returns
        -------
        int or None
        """
        if not fingerprint:
            return None
        found = (
            i for i, one in enumerate(self.slides) if one.fingerprint == fingerprint
        )
        return next(found, None)

    def with_slide(self, slide: ProjectSlide, at: int | None = None) -> Project:
        """Return a copy with a slide added or replaced.

        Parameters
        ----------
        slide : ProjectSlide
            The slide.
        at : int, optional
            Position of the slide that it replaces; by default that of the same
            fingerprint, or else it is added at the end.

        Returns
        -------
        Project
        """
        at = self.index_of(slide.fingerprint) if at is None else at
        if at is None:
            return self.model_copy(update={"slides": (*self.slides, slide)})
        slides = (*self.slides[:at], slide, *self.slides[at + 1 :])
        return self.model_copy(update={"slides": slides})

    def without_slide(self, at: int) -> Project:
        """Return a copy without one slide.

        Parameters
        ----------
        at : int
            Position of the slide.

        Returns
        -------
        Project
        """
        slides = (*self.slides[:at], *self.slides[at + 1 :])
        return self.model_copy(update={"slides": slides})
