"""Which slides are in the training set of an encoder, and a warning for tests on one.

A training writes the fingerprints of its slides into the recipe of the encoder that it
exports, with those of the encoders that it started from: student, teacher, and whatever
these were made from. A recipe travels with the weights, and into each feature file. A
slide is known by its content: a copy, or a file of another name, is recognised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.errors import McmError
from napari_mcm.core.slides import ReadConfig

if TYPE_CHECKING:
    from napari_mcm.core.slides import Slide

RECIPE_KEY = "learned_from"
"""Entry of a recipe, and of the encoder in a feature file."""


_SHOWN = 5


@dataclass(frozen=True)
class LearnedFrom:
    """The slides in the training set of an encoder.

    Attributes
    ----------
    slides : mapping of str to str
        Name by fingerprint: everything that any training in its history has seen.
    probes : mapping of str to str
        Those on which a training was only measured: they have changed no weight.
    """

    slides: Mapping[str, str] = field(default_factory=dict)
    probes: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the entry for a recipe.

        Returns
        -------
        dict
            The one key `RECIPE_KEY`, with JSON types.
        """
        return {RECIPE_KEY: {"slides": dict(self.slides), "probes": dict(self.probes)}}

    def also(self, other: LearnedFrom) -> LearnedFrom:
        """Return the slides of two histories together.

        Parameters
        ----------
        other : LearnedFrom
            For example that of the student that a training started from.

        Returns
        -------
        LearnedFrom
            All slides of both.
        """
        return LearnedFrom(
            {**other.slides, **self.slides}, {**other.probes, **self.probes}
        )


def training_record(
    slides: Iterable[Slide],
    origins: Iterable[Mapping[str, Any]] = (),
    probes: Iterable[Slide] = (),
) -> LearnedFrom:
    """Return the training set of an encoder once a training is over.

    Parameters
    ----------
    slides : iterable of Slide
        The slides of this training.
    origins : iterable of mapping, optional
        Recipes of the encoders that it started from, as :attr:`Encoder.recipe`: a
        student inherits what its teacher has seen.
    probes : iterable of Slide, optional
        Slides on which it was measured only.

    Returns
    -------
    LearnedFrom
        For the recipe of the new encoder.
    """
    found = LearnedFrom(
        {slide.fingerprint: slide.name for slide in slides},
        {slide.fingerprint: slide.name for slide in probes},
    )
    for recipe in origins:
        found = found.also(learned_from(recipe))
    return found


def learned_from(encoder: Mapping[str, Any]) -> LearnedFrom:
    """Return the slides in the training set of an encoder, as far as they are known.

    Parameters
    ----------
    encoder : mapping
        A recipe, or the encoder of a feature file, from any source.

    Returns
    -------
    LearnedFrom
        Of an encoder that an earlier version trained, the slides that its run names and
        that are still there; empty where nothing is known.
    """
    stated = encoder.get(RECIPE_KEY)
    if isinstance(stated, Mapping):
        return LearnedFrom(_names(stated.get("slides")), _names(stated.get("probes")))
    if "fine_tuning" in encoder or "pretraining" in encoder:
        return _of_old_run(str(encoder.get("spec") or ""))
    return LearnedFrom()


def _names(stated: object) -> dict[str, str]:
    if not isinstance(stated, Mapping):
        return {}
    return {str(key): str(name) for key, name in stated.items()}


@lru_cache(maxsize=64)
def _of_old_run(spec: str) -> LearnedFrom:
    """Identify the slides that the configuration of a run names."""
    # An encoder is named by its run, or by the folder of weights in it.
    for folder in (Path(spec), Path(spec).parent, Path(spec).parent.parent):
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            read = ReadConfig.model_validate(config.get("read") or {})
            slides = config.get("slides") or config["images"]["slides"]
            paths = [Path(path) for path in slides]
            origins = [
                str(config.get(key) or "") for key in ("student", "teacher", "start")
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        found = LearnedFrom(_identify(paths, read))
        for origin in origins:
            # A run that started from another one; names of timm are no folders.
            if origin and origin != spec and (Path(origin) / "config.json").is_file():
                found = found.also(_of_old_run(origin))
        return found
    return LearnedFrom()


def _identify(paths: Sequence[Path], read: ReadConfig) -> dict[str, str]:
    found = {}
    # Only what is on this machine: an address may take minutes, or be another's by now.
    for path in filter(Path.exists, paths):
        try:
            with read.open(path) as slide:
                found[slide.fingerprint] = slide.name
        # A slide that was moved or is damaged: nothing can be said of it.
        except McmError:
            continue
    return found


def seen_slides(
    encoder: Mapping[str, Any], slides: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Return the slides among some that are in the training set of an encoder.

    Parameters
    ----------
    encoder : mapping
        As :func:`learned_from` takes it.
    slides : iterable of mapping
        Name and fingerprint of each, as a grid holds them in `PatchGrid.slide`.

    Returns
    -------
    list of str
        Their names as they are called now, in order, each once.
    """
    known = learned_from(encoder).slides
    if not known:
        return []
    names = [str(s.get("name", "")) for s in slides if s.get("fingerprint") in known]
    return list(dict.fromkeys(names))


def seen_warning(encoder: str, slides: Sequence[str]) -> str:
    """Return the sentence that warns of slides in the training set of an encoder.

    Parameters
    ----------
    encoder : str
        What the encoder is called.
    slides : sequence of str
        Names, as :func:`seen_slides` returns them.

    Returns
    -------
    str
        One line; "" where there is no slide.
    """
    if not slides:
        return ""
    if len(slides) == 1:
        return (
            f"slide {slides[0]} is in the training set of encoder {encoder}: figures on "
            "it flatter the encoder"
        )
    shown = ", ".join(slides[:_SHOWN])
    more = f" and {len(slides) - _SHOWN} more" if len(slides) > _SHOWN else ""
    return (
        f"slides {shown}{more} are in the training set of encoder {encoder}: figures on "
        "them flatter the encoder"
    )


def warn_of_seen(
    encoder: Mapping[str, Any], slides: Iterable[Mapping[str, Any]], name: str = ""
) -> str:
    """Return the warning where slides are in the training set of their encoder.

    Parameters
    ----------
    encoder : mapping
        As :func:`learned_from` takes it.
    slides : iterable of mapping
        As :func:`seen_slides` takes it.
    name : str, optional
        What the encoder is called; by default as it names itself.

    Returns
    -------
    str
        One line; "" where none of them is, or nothing is known.
    """
    called = name or str(encoder.get("spec") or encoder.get("architecture") or "?")
    return seen_warning(called, seen_slides(encoder, slides))
