"""Metrics of a study's trial: an encoder trained on some slides, tested on others.

The measures are those of ``napari-mcm evaluate``. Classifiers are trained on labels of the
training slides, and tested on slides that neither they nor the encoder have seen. Features
are extracted once; for each context radius they are averaged over the patches around, and
all measures are taken again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from napari_mcm.core.encoders.learned_from import warn_of_seen
from napari_mcm.core.errors import ConfigError, FeatureError
from napari_mcm.core.evaluation import EvaluateConfig
from napari_mcm.core.evaluation.dataset import LabelledPatches, gather
from napari_mcm.core.evaluation.intervals import balanced_accuracy, macro_auroc
from napari_mcm.core.evaluation.labels import label_patches
from napari_mcm.core.evaluation.metrics import (
    Candidates,
    anisotropy,
    effective_rank,
    feature_spread,
    similarity_auroc,
)
from napari_mcm.core.evaluation.probes import few_shot, linear_probe, nearest_neighbours
from napari_mcm.core.evaluation.surroundings import near_other_class
from napari_mcm.core.features.batch_extraction import extract_slides
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.runtime.jobs import Job, Meter, Note, Progress
from napari_mcm.core.studies.study_config import StudyConfig, StudySlide

Scores = NDArray[np.float64]

Mask = NDArray[np.bool_]

ByRadius = dict[int, dict[str, float]]
"""Value by context radius and measure."""


def evaluate_arm(
    encoder: str,
    train: Sequence[StudySlide],
    test: Sequence[StudySlide],
    folder: Path,
    config: FinetuneConfig,
    study: StudyConfig,
) -> Job[ByRadius]:
    """Measure an encoder on labelled slides, as a job.

    Parameters
    ----------
    encoder : str
        What :func:`load_encoder` takes.
    train, test : sequence of StudySlide
        Slides whose labels classifiers are trained on, and slides to test on.
    folder : Path
        Folder for features.
    config : FinetuneConfig
        Patches and tissue of the study.
    study : StudyConfig
        Options of the evaluation, context radii and subsets.

    Yields
    ------
    Event
        Progress of extraction and measures.

    Returns
    -------
    dict of int to dict of str to float
        By context radius, and by the names of ``napari-mcm evaluate``; measures on a
        subset have its name in brackets. Where training and test slides are the same,
        each slide (or patient) is tested by classifiers trained on the others.

    Raises
    ------
    ConfigError
        If an option is wrong, or a class has too few labels.
    FeatureError
        If a slide cannot be read, or nothing on it is labelled.
    """
    checked = evaluation_options(study.evaluation)
    slides = [s for s in dict.fromkeys((*train, *test)) if _labelled(s)]
    paths = [slide.slide for slide in slides]
    sets = yield from extract_study(encoder, paths, folder, config)
    named = {_name(slide): found for slide, found in zip(slides, sets, strict=True)}
    labels: dict[str, list[str]] = {}
    for slide in slides:
        labels[_name(slide)] = _labels(slide, named[_name(slide)], checked)
        yield Progress("Labelling patches", len(labels), len(slides), "slides")
    patients = {_name(s): s.patient or _name(s) for s in slides}
    tested = {_name(slide) for slide in test}
    on = [found.grid.slide for name, found in named.items() if name in tested]
    if warning := warn_of_seen(sets[0].encoder, on, encoder):
        yield Note(warning, "warning")
    found: ByRadius = {}
    # Many small products: threads that wait for each other make them slower.
    with threadpool_limits(config.compute.threads):
        for radius in study.radii:
            around = average_all(named, radius)
            patches = gather(
                {"encoder": around}, labels, checked.classes, checked.exclude, patients
            )
            measuring = _Measuring(
                patches, tested, bool(set(train) - set(test)), checked, study
            )
            if study.border:
                measuring.add_border(named, labels)
            found[radius] = yield from measuring.all()
    return found


def average_all(sets: Mapping[str, FeatureSet], radius: int) -> dict[str, FeatureSet]:
    """Average the features of several slides with those of the patches around.

    Parameters
    ----------
    sets : mapping of str to FeatureSet
        Features of single patches, by slide.
    radius : int
        Context radius in patch widths.

    Returns
    -------
    dict of str to FeatureSet
        The same slides.
    """
    config = NeighbourhoodConfig(radius=radius)
    return {name: average_neighbourhood(one, config) for name, one in sets.items()}


def _labelled(slide: StudySlide) -> bool:
    return slide.labels is not None or slide.label is not None


def _labels(
    slide: StudySlide, features: FeatureSet, options: EvaluateConfig
) -> list[str]:
    """Return the class of each patch of a slide."""
    if slide.labels is None:
        return [slide.label or ""] * len(features)
    return label_patches(slide.labels, features.grid, options.covered, options.columns)


def evaluation_options(options: Mapping[str, Any]) -> EvaluateConfig:
    """Check a study's options of the evaluation.

    Parameters
    ----------
    options : mapping
        Options of evaluate, nested.

    Returns
    -------
    EvaluateConfig
        The options.

    Raises
    ------
    ConfigError
        If one is wrong.
    """
    if "neighbourhood" in options:
        raise ConfigError(
            "cannot be set here", "evaluation: neighbourhood", 'Use "radii"'
        )
    try:
        return EvaluateConfig.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{where}: {first['msg']}", "evaluation") from None


def _name(slide: StudySlide) -> str:
    return str(slide.slide)


def extract_study(
    encoder: str, slides: Sequence[Path], folder: Path, config: FinetuneConfig
) -> Job[list[FeatureSet]]:
    """Compute the features of slides, or read those that are complete, as a job.

    Parameters
    ----------
    encoder : str
        What :func:`load_encoder` takes.
    slides : sequence of Path
        The slides.
    folder : Path
        Folder of the feature files.
    config : FinetuneConfig
        Patches and tissue of the study.

    Yields
    ------
    Event
        Progress of the extraction.

    Returns
    -------
    list of FeatureSet
        In the order of the slides.

    Raises
    ------
    FeatureError
        If a slide cannot be read.
    """
    extraction = ExtractConfig(
        slides=tuple(slides),
        encoder=(encoder,),
        out=folder,
        workers=config.workers,
        compile="off",
        read=config.read,
        grid=config.grid,
        tissue=config.tissue,
        compute=config.compute,
    )
    done = yield from extract_slides(extraction)
    if len(done.files) < len(slides):
        raise FeatureError(f"slides could not be read: {'; '.join(done.failed)}")
    # A slide that another process was extracting comes last: order them by name.
    by_name = {one.grid.slide["name"]: one for one in map(read_features, done.files)}
    found = []
    for path in slides:
        with config.read.open(path) as slide:
            found.append(by_name[slide.name])
    return found


class _Measuring:
    """All measures of one encoder on the patches of the test slides."""

    def __init__(
        self,
        patches: LabelledPatches,
        tested: set[str],
        disjoint: bool,
        options: EvaluateConfig,
        study: StudyConfig,
    ) -> None:
        self.patches, self.options, self.study = patches, options, study
        is_test = np.asarray([name in tested for name in patches.slide_names], bool)
        self.test: NDArray[np.bool_] = is_test[patches.slides]
        if not self.test.any():
            raise FeatureError("no patch of the test slides lies in a labelled region")
        # A fixed penalty needs no inner split of the training slides: they are one
        # fold then, which takes far fewer fits.
        chosen = options.protocol.strength
        whole = disjoint and chosen != "inner"
        self.strength = None if chosen == "inner" else float(chosen)
        self.folds = (~self.test).astype(np.int64) if whole else patches.groups
        self.tested = np.unique(self.folds[self.test]).tolist()
        self.can_learn = bool((~self.test).any()) or len(patches.group_names) > 1
        self.parts: dict[str, Mask] = {"": self.test} | self._subsets()
        kinds = np.unique(np.column_stack([patches.slides, patches.labels]), axis=0)
        self.one_class_per_slide = len(kinds) == len(patches.slide_names)
        self.positive = self._index_of(options.positive)

    def _index_of(self, name: str | None) -> int | None:
        if name is None:
            return None
        if name not in self.patches.classes:
            raise ConfigError(
                f"no patch is of class {name}",
                "evaluation: positive",
                f"The classes are: {', '.join(self.patches.classes)}",
            )
        return self.patches.classes.index(name)

    def _subsets(self) -> dict[str, Mask]:
        """Return the test patches of each subset, by the ending of its measures."""
        patches, found = self.patches, {}
        for name, members in self.study.subsets.items():
            known = [group in members for group in patches.group_names]
            short = [Path(s).name.split(".")[0] in members for s in patches.slide_names]
            inside = np.asarray(known)[patches.groups]
            inside |= np.asarray(short)[patches.slides]
            found[f" ({name})"] = inside & self.test
        return found

    def add_border(
        self, sets: Mapping[str, FeatureSet], labels: Mapping[str, Sequence[str]]
    ) -> None:
        """Measure patches near another class, or none, apart from inner ones."""
        border = np.zeros(len(self.patches), bool)
        for number, name in enumerate(self.patches.slide_names):
            rows = np.flatnonzero(self.patches.slides == number)
            places = self.patches.places_um[rows]
            border[rows] = near_other_class(
                sets[name], labels[name], places, self.study.border
            )
        self.parts |= {" (border)": border & self.test, " (inner)": ~border & self.test}

    def all(self) -> Job[dict[str, float]]:
        """Compute all measures that the labels allow."""
        found: dict[str, float] = {}
        if self.can_learn:
            found |= yield from self._few_shot()
        found |= yield from self._similarity()
        if self.can_learn:
            found |= yield from self._classifiers()
        own = self.patches.features["encoder"][self.test]
        found["anisotropy"] = anisotropy(own).value
        found["effective_rank"] = effective_rank(own).value
        found["feature_std"] = feature_spread(own).value
        return found

    def _classifiers(self) -> Job[dict[str, float]]:
        patches = self.patches
        features, labels = patches.features["encoder"], patches.labels
        scores, _ = yield from linear_probe(
            features, labels, self.folds, self.strength, tested=self.tested
        )
        found = self._aurocs("probe_auroc", scores)
        found["probe_accuracy"] = self._accuracy(scores)
        scores = yield from nearest_neighbours(
            features,
            labels,
            self.folds,
            self.options.protocol.neighbours,
            self.tested,
        )
        found |= self._aurocs("knn_auroc", scores)
        # With several radii, radius 1 says the same and more.
        if self.study.radii == (0,):
            around = patches.surroundings["encoder"]
            scores, _ = yield from linear_probe(
                around, labels, self.folds, self.strength, tested=self.tested
            )
            found["surroundings_auroc"] = self._auroc(scores, self.test)
            gain = found["surroundings_auroc"] - found["probe_auroc"]
            found["neighbour_gain"] = gain
        return found

    def _check_few_shot(self) -> None:
        """Check that each class has enough labels on the training slides.

        Raises
        ------
        ConfigError
            If a class has too few.
        """
        patches, least = self.patches, self.options.protocol.few_shot
        for fold in np.unique(self.folds[self.test]):
            known = np.bincount(
                patches.labels[self.folds != fold], minlength=len(patches.classes)
            )
            for name, count in zip(patches.classes, known, strict=True):
                if count < least:
                    raise ConfigError(
                        f"class {name} has {count} labelled patches on the training "
                        f"slides, and the few-shot probe draws {least}",
                        "evaluation",
                        'Choose others by "classes" or "exclude", or a smaller '
                        '"few_shot"',
                    )

    def _few_shot(self) -> Job[dict[str, float]]:
        self._check_few_shot()
        protocol, values = self.options.protocol, list[dict[str, float]]()
        meter = Meter("Few-shot probe", protocol.draws, "draws")
        yield meter.progress()
        for scores in few_shot(
            self.patches.features["encoder"],
            self.patches.labels,
            self.folds,
            protocol.few_shot,
            protocol.draws,
            protocol.seed,
            self.tested,
        ):
            values.append(self._aurocs("few_shot_auroc", scores))
            yield meter.advance()
        return {n: float(np.mean([one[n] for one in values])) for n in values[0]}

    def _similarity(self) -> Job[dict[str, float]]:
        patches = self.patches
        queries = self.test
        if self.positive is not None:
            queries = queries & (patches.labels == self.positive)
        # Candidates of a query are of other patients; its own slide is a click's.
        asked: dict[str, tuple[Candidates, NDArray[np.int64]]] = {
            "similarity_auroc": (self.options.protocol.candidates, patches.groups),
            "similarity_own_slide_auroc": ("same", patches.slides),
        }
        if self.one_class_per_slide:
            del asked["similarity_own_slide_auroc"]
        found = {}
        for name, (candidates, groups) in asked.items():
            _, by_query = yield from similarity_auroc(
                patches.features["encoder"],
                patches.labels,
                groups,
                candidates,
                queries,
            )
            for ending, part in self.parts.items():
                values = by_query[part][np.isfinite(by_query[part])]
                found[name + ending] = _mean(values)
        return found

    def _aurocs(self, name: str, scores: Scores) -> dict[str, float]:
        return {
            name + ending: self._auroc(scores, part)
            for ending, part in self.parts.items()
        }

    def _auroc(self, scores: Scores, part: Mask) -> float:
        if not part.any():
            return float("nan")
        labels, slides = self.patches.labels[part], self.patches.slides[part]
        _, groups = np.unique(slides, return_inverse=True)
        if self.study.pooled:
            groups = np.zeros_like(groups)
        return macro_auroc(scores[part], labels, groups, self.positive).value

    def _accuracy(self, scores: Scores) -> float:
        return balanced_accuracy(
            scores[self.test], self.patches.labels[self.test]
        ).value


def _mean(values: Scores) -> float:
    return float(values.mean()) if len(values) else float("nan")
