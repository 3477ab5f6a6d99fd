"""Features of all labelled patches, also of slides that are not open.

The order of slides and patches is that of
:func:`~napari_mcm.core.labelling.training.gather_labels`: the same labels and features
give the same classifier as on the command line, to the bit.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import McmError
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.labelling import (
    LabelSet,
    PatchLabel,
    features_of_rows,
    place_labels,
)
from napari_mcm.core.labelling.training import LabelledFeatures


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """What a classifier is trained on.

    Attributes
    ----------
    labelled : LabelledFeatures
        Features and classes of the labelled patches of all slides.
    missing : tuple of str
        Fingerprints of labelled slides without features here.
    """

    labelled: LabelledFeatures
    missing: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labelled)


@dataclass(frozen=True, eq=False)
class _Placed:
    """The labels of one slide, on patches."""

    labels: tuple[PatchLabel, ...]
    names: tuple[str, ...]
    features: NDArray[np.float32]
    outside: frozenset[Any]


class LabelledPatches:
    """Finds the features of labelled patches, and keeps those of each slide.

    Called in one thread only.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, NeighbourhoodConfig], _Placed] = {}

    def gather(
        self,
        labels: LabelSet,
        encoder: str,
        neighbourhood: NeighbourhoodConfig,
        open_slides: Sequence[FeatureSet],
        files: Callable[[], Mapping[str, Path]],
    ) -> TrainingRows:
        """Return the features of all labelled patches.

        Parameters
        ----------
        labels : LabelSet
            Classes and labels.
        encoder : str
            Identifies the encoder of all features.
        neighbourhood : NeighbourhoodConfig
            What features are averaged over.
        open_slides : sequence of FeatureSet
            Features in memory, at least one.
        files : callable
            Returns the feature files of other slides, by the slides' fingerprints;
            called if some are needed.
        """
        in_memory = {_slide_of(one): one for one in open_slides}
        parts: dict[str, _Placed] = {}
        missing = []
        for slide in sorted(labels.slides):
            key = slide, encoder, neighbourhood
            own = labels.of_slide(slide)
            features, known = in_memory.get(slide), self._known.get(key)
            if known is None or known.labels != own.labels or features is not None:
                features = features or _read(files().get(slide))
                if features is None:
                    missing.append(slide)
                    continue
                known = _place(own, features, neighbourhood)
                self._known[key] = known
            parts[slide] = known
        return TrainingRows(_joined(labels, parts, open_slides[0]), tuple(missing))


def _place(
    labels: LabelSet, features: FeatureSet, neighbourhood: NeighbourhoodConfig
) -> _Placed:
    placed = place_labels(labels, features)
    vectors = features_of_rows(features, placed.rows, neighbourhood)
    names = np.asarray(labels.names, object)[placed.classes]
    outside = frozenset(one.place for one in placed.outside)
    return _Placed(labels.labels, tuple(names), vectors, outside)


def _joined(
    labels: LabelSet, parts: Mapping[str, _Placed], first: FeatureSet
) -> LabelledFeatures:
    index = {name: number for number, name in enumerate(labels.names)}
    full = {slide: part for slide, part in parts.items() if part.names}
    lengths = [len(part.names) for part in full.values()]
    classes = [index[name] for part in full.values() for name in part.names]
    vectors = [part.features for part in full.values()]
    used = [
        one
        for part in full.values()
        for one in sorted(part.labels, key=lambda one: one.place)
        if one.place not in part.outside
    ]
    text = "\n".join(f"{one.place} {one.label}" for one in used)
    return LabelledFeatures(
        np.concatenate(vectors) if vectors else np.empty((0, first.dim), np.float32),
        np.asarray(classes, np.int64),
        np.repeat(np.arange(len(full)), lengths).astype(np.int64),
        labels.names,
        {one.name: one.color for one in labels.classes},
        tuple(full),
        first.encoder,
        sum(len(part.outside) for part in parts.values()),
        len(labels) - sum(len(part.labels) for part in parts.values()),
        hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
        dict(Counter(one.author for one in used)),
    )


def _slide_of(features: FeatureSet) -> str:
    return str(features.grid.slide.get("fingerprint") or "")


def _read(path: Path | None) -> FeatureSet | None:
    """Read a feature file; None if there is none, or none that can be read."""
    from napari_mcm.core.features.reading import read_features

    if path is None:
        return None
    try:
        return read_features(path)
    except McmError:
        return None
