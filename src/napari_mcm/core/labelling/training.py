"""Training a classifier of patches from labels and feature files, as a job.

:func:`gather_labels` is also what the viewer trains with: the same labels and features
give the same classifier, to the bit, in the window and on the command line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError, FeatureError, LabelError
from napari_mcm.core.features.feature_set import FeatureSet, known_fingerprint
from napari_mcm.core.labelling.classifier import (
    PatchClassifier,
    fit_classifier,
    with_origin,
)
from napari_mcm.core.labelling.classifier_file import save_classifier
from napari_mcm.core.labelling.config import ClassifierConfig, TrainPatchesConfig
from napari_mcm.core.labelling.feature_files import find_feature_files, read_any
from napari_mcm.core.labelling.files import read_labels
from napari_mcm.core.labelling.held_out import HeldOutAccuracy, held_out_accuracy
from napari_mcm.core.labelling.label_set import LabelSet
from napari_mcm.core.labelling.maps import features_of_rows
from napari_mcm.core.labelling.placing import place_labels
from napari_mcm.core.runtime.jobs import Job, Meter, Note
from napari_mcm.core.runtime.threads import run_in_thread


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features of labelled patches, in an order that does not depend on the clicks.

    Attributes
    ----------
    features : ndarray of float32, shape (n, D)
        Averaged over the neighbourhood; slides by fingerprint, then patches.
    classes, groups : ndarray of int64, shape (n,)
        Class and slide of each.
    names : tuple of str
        Names of the classes.
    colors : mapping of str to str
        Colour of each class.
    slides : tuple of str
        Fingerprints of the slides.
    encoder : mapping
        Recipe and fingerprint of the features' encoder.
    outside : int
        Number of labels of these slides that mean no patch with features.
    elsewhere : int
        Number of labels of other slides.
    digest : str
        Hash of the labels that were used.
    authors : mapping of str to int
        Number of labels used, by author.
    """

    features: NDArray[np.float32]
    classes: NDArray[np.int64]
    groups: NDArray[np.int64]
    names: tuple[str, ...]
    colors: Mapping[str, str]
    slides: tuple[str, ...]
    encoder: Mapping[str, Any]
    outside: int
    elsewhere: int
    digest: str
    authors: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.classes)

    def provenance(self, labels: LabelSet, file: str = "") -> dict[str, Any]:
        """Describe the labels for a classifier file.

        Parameters
        ----------
        labels : LabelSet
            The labels.
        file : str, optional
            Their file.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return {
            "labels": {
                "file": file,
                "digest": self.digest,
                "count": len(self),
                "slides": {one: labels.slide_name(one) for one in self.slides},
                "authors": dict(self.authors),
            },
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def gather_labels(
    labels: LabelSet, sets: Sequence[FeatureSet], config: ClassifierConfig
) -> LabelledFeatures:
    """Collect the features of all labelled patches.

    Parameters
    ----------
    labels : LabelSet
        Labels of any slides.
    sets : sequence of FeatureSet
        Features of slides, of one encoder.
    config : ClassifierConfig
        States the neighbourhood.

    Returns
    -------
    LabelledFeatures

    Raises
    ------
    FeatureError
        If features are of different encoders, or averages over another neighbourhood.
    LabelError
        If no label is of these slides.
    """
    _check_encoders(sets)
    gathered = _Gathered(labels)
    for features in sorted(sets, key=_slide_of):
        gathered.add(features, config)
    return gathered.finish(sets)


class _Gathered:
    """Labelled patches, slide by slide."""

    def __init__(self, labels: LabelSet) -> None:
        self._labels = labels
        self._parts: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
        self._slides: list[str] = []
        self._outside = 0
        self._used: list[str] = []
        self._authors: dict[str, int] = {}

    def add(self, features: FeatureSet, config: ClassifierConfig) -> None:
        """Add the labelled patches of a slide."""
        slide = _slide_of(features)
        if slide in self._slides:
            return  # two files of one slide: its labels count once
        placed = place_labels(self._labels, features)
        self._outside += len(placed.outside)
        if not len(placed.rows):
            return
        vectors = features_of_rows(features, placed.rows, config.neighbourhood)
        self._parts.append((vectors, placed.classes))
        self._slides.append(slide)
        outside = {one.place for one in placed.outside}
        for one in sorted(self._labels.of_slide(slide).labels, key=lambda o: o.place):
            if one.place not in outside:
                self._used.append(f"{one.place} {one.label}")
                self._authors[one.author] = self._authors.get(one.author, 0) + 1

    def finish(self, sets: Sequence[FeatureSet]) -> LabelledFeatures:
        """Return what was gathered.

        Raises
        ------
        LabelError
            If there is nothing.
        """
        given = {_slide_of(one) for one in sets}
        elsewhere = sum(one.slide not in given for one in self._labels.labels)
        if not self._parts:
            problem = _nothing(self._labels, elsewhere, self._outside)
            raise problem
        vectors, classes = (np.concatenate(p) for p in zip(*self._parts, strict=True))
        lengths = [len(part) for _, part in self._parts]
        return LabelledFeatures(
            vectors,
            classes,
            np.repeat(np.arange(len(lengths)), lengths),
            self._labels.names,
            {one.name: one.color for one in self._labels.classes},
            tuple(self._slides),
            sets[0].encoder,
            self._outside,
            elsewhere,
            hashlib.blake2b("\n".join(self._used).encode(), digest_size=8).hexdigest(),
            self._authors,
        )


def train_on(
    gathered: LabelledFeatures,
    config: ClassifierConfig,
    provenance: Mapping[str, Any] | None = None,
    calibrate: bool = True,
) -> PatchClassifier:
    """Train a classifier on labelled patches.

    Parameters
    ----------
    gathered : LabelledFeatures
        From :func:`gather_labels`.
    config : ClassifierConfig
        Regularization, limits and neighbourhood.
    provenance : mapping, optional
        For the classifier's file.
    calibrate : bool, optional
        Whether to calibrate where there are enough labels.

    Returns
    -------
    PatchClassifier

    Raises
    ------
    LabelError
        If there are labels of fewer than two classes.
    """
    made = fit_classifier(
        gathered.features,
        gathered.classes,
        gathered.names,
        config,
        gathered.groups,
        calibrate,
    )
    return with_origin(made, gathered.encoder, gathered.colors, provenance)


@dataclass(frozen=True, eq=False)
class TrainPatchesResult:
    """A classifier that was trained from files.

    Attributes
    ----------
    classifier : PatchClassifier
        The classifier.
    file : Path
        Its file.
    labelled : LabelledFeatures
        What it was trained on.
    held_out : HeldOutAccuracy or None
        Accuracy on held-out labels; None where there are too few.
    """

    classifier: PatchClassifier
    file: Path
    labelled: LabelledFeatures
    held_out: HeldOutAccuracy | None


def train_patches(config: TrainPatchesConfig) -> Job[TrainPatchesResult]:
    """Train a classifier from a label file and feature files, as a job.

    Parameters
    ----------
    config : TrainPatchesConfig
        Labels, features, options and the output file.

    Yields
    ------
    Event
        Progress in files; notes on labels that are not used.

    Returns
    -------
    TrainPatchesResult

    Raises
    ------
    ConfigError
        If an option is missing.
    LabelError
        If the label file cannot be used, or there are labels of fewer than two classes.
    FeatureError
        If features cannot be read, or are of different encoders.
    """
    if config.labels is None or not config.features or config.out is None:
        raise ConfigError(
            "a label file, features and --out are needed",
            hint="See napari-mcm labels train --help",
        )
    labels = yield from run_in_thread("Reading labels", read_labels, config.labels)
    sets = yield from _read_labelled(labels, config)
    gathered = yield from run_in_thread(
        "Gathering labelled patches", gather_labels, labels, sets, config.classifier
    )
    for note in notes_on(gathered):
        yield Note(note, "warning")
    provenance = gathered.provenance(labels, str(config.labels))
    made = yield from run_in_thread(
        "Training", train_on, gathered, config.classifier, provenance
    )
    held_out = None
    try:
        held_out = yield from run_in_thread(
            "Measuring accuracy",
            held_out_accuracy,
            gathered.features,
            gathered.classes,
            gathered.groups,
            config.classifier,
            config.seed,
        )
    except LabelError as error:
        yield Note(f"{error.what}: it is not measured")
    yield from run_in_thread("Writing", save_classifier, config.out, made)
    return TrainPatchesResult(made, config.out, gathered, held_out)


def notes_on(gathered: LabelledFeatures) -> list[str]:
    """Return what to say about labels that were not used.

    Parameters
    ----------
    gathered : LabelledFeatures
        What was used.

    Returns
    -------
    list of str
        One line each.
    """
    notes = []
    if gathered.outside:
        notes.append(
            f"{gathered.outside} labels mean no patch with features (outside of the "
            "tissue): they are kept in the label file and not used"
        )
    if gathered.elsewhere:
        notes.append(
            f"{gathered.elsewhere} labels are of slides whose features are not given, "
            "and not used"
        )
    return notes


def _read_labelled(
    labels: LabelSet, config: TrainPatchesConfig
) -> Job[list[FeatureSet]]:
    """Read the features of the slides that have labels.

    Raises
    ------
    LabelError
        If no slide has.
    """
    files, skipped = find_feature_files(config.features)
    for line in skipped:
        yield Note(line)
    wanted, sets = set(labels.slides), []
    meter = Meter("Reading features", len(files), "files")
    for found in files:
        yield meter.progress()
        if found.fingerprint in (None, *wanted):
            features = yield from run_in_thread(
                meter.progress(), read_any, found.path, abandon=True
            )
            if _slide_of(features) in wanted:
                sets.append(features)
        yield meter.advance()
    if not sets:
        problem = _nothing(labels, len(labels), 0)
        raise problem
    return sets


def _slide_of(features: FeatureSet) -> str:
    return str(features.grid.slide.get("fingerprint") or "")


def _check_encoders(sets: Sequence[FeatureSet]) -> None:
    """Check that all features are of one encoder.

    Raises
    ------
    FeatureError
        If they are not.
    """
    for one in sets[1:]:
        first = sets[0]
        known, wanted = map(known_fingerprint, (one.encoder, first.encoder))
        if (known and wanted and known != wanted) or one.dim != first.dim:
            raise FeatureError(
                f"has features of another encoder ({one.encoder.get('spec')}) than "
                f"{first.grid.slide.get('name')} ({first.encoder.get('spec')})",
                one.grid.slide.get("name"),
                "Give features of one encoder",
            )


def _nothing(labels: LabelSet, elsewhere: int, outside: int) -> LabelError:
    if not len(labels):
        return LabelError("there are no labels", hint="Label patches of two classes")
    return LabelError(
        f"none of the {len(labels)} labels can be used: {elsewhere} are of other slides, "
        f"{outside} mean no patch with features",
        hint="Give the features of the labelled slides",
    )
