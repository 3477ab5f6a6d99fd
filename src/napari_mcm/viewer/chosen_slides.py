"""Which slides a task is for: open ones, files, a folder of them, or a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mil.cohort import read_cohort
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.slides.find import find_slides
from napari_mcm.core.tissue import TissueConfig
from napari_mcm.viewer.places import drawn_mask_path
from napari_mcm.viewer.slide_facts import SlideFacts, slide_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.viewer.session import Session


@dataclass(frozen=True)
class ChosenSlides:
    """Slides, and what the window knows of them.

    Attributes
    ----------
    paths : tuple of Path
        Files, and folders of them.
    read : ReadConfig
        With the resolution that the user stated.
    tissue : TissueConfig
        With the masks that were drawn on open slides.
    """

    paths: tuple[Path, ...]
    read: ReadConfig = ReadConfig()
    tissue: TissueConfig = TissueConfig()


def open_slides(session: Session, layers: Sequence[Layer]) -> ChosenSlides:
    """Take slides that are open.

    Raises
    ------
    ValueError
        With one line, where there is none, or they cannot be taken together.
    """
    facts = [f for layer in layers if (f := SlideFacts.of_layer(layer))]
    if not facts:
        raise ValueError("No slide is open")
    for fact in facts:
        if fact.mpp is None:
            raise ValueError(f"The resolution of {fact.name} is not known: give it")
    stated = {fact.mpp_override for fact in facts}
    if len(stated) > 1:
        raise ValueError(
            "The resolution that you stated would be taken for all open slides: "
            "choose one slide, or close the others"
        )
    (mpp,) = stated
    return ChosenSlides(
        tuple(Path(fact.path) for fact in facts),
        ReadConfig(mpp_override=mpp),
        TissueConfig(masks=_masks(session, layers)),
    )


def listed_slides(table: Path) -> ChosenSlides:
    """Take the slides that a table names by their paths.

    Raises
    ------
    ConfigError
        If it cannot be read, or a slide is not where it says.
    """
    cohort = read_cohort(table, labelled=False)
    found = []
    for case in cohort.cases:
        if not case.path:
            hint = (
                "Give the table a column path: each slide's file, seen from the table"
            )
            raise ConfigError(f"says not where {case.slide} is", table, hint)
        path = table.parent / case.path
        if not path.exists():
            raise ConfigError(f"{case.slide} is not at {path}", table)
        found.append(path.absolute())
    return ChosenSlides(tuple(dict.fromkeys(found)))


def describe(paths: Sequence[Path]) -> str:
    """Say which slides are meant: ``12 slides: a, b, c, …``.

    Raises
    ------
    SlideError
        If one is not there, or a folder holds none.
    """
    found = find_slides(paths)
    names = ", ".join(path.name for path in found[:3])
    more = ", …" if len(found) > 3 else ""
    count = "1 slide" if len(found) == 1 else f"{len(found):,} slides"
    return f"{count}: {names}{more}"


def _masks(session: Session, layers: Sequence[Layer]) -> Path | None:
    """Give the folder of masks drawn on open slides; None where none is drawn."""
    session.tissue.flush()
    drawn = [
        drawn_mask_path(slide)
        for layer in layers
        if session.tissue.drawn_mask(layer) is not None
        and (slide := slide_of(layer)) is not None
    ]
    if len(layers) == 1 and drawn:
        return drawn[0]
    folders = {path.parent for path in drawn}
    if len(folders) > 1:
        raise ValueError(
            "Masks were drawn on slides of different folders: put the slides into one"
        )
    return folders.pop() if folders else None
