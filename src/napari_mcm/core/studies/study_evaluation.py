"""Metrics of a study's trial: an encoder trained on some slides, tested on others.

The measures are those of ``napari-mcm evaluate``. Classifiers are trained on labels of the
training slides, and tested on slides that neither they nor the encoder have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

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
from napari_mcm.core.features.batch_extraction import extract_slides
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.runtime.jobs import Job, Meter, Progress
from napari_mcm.core.studies.study_config import StudySlide

Scores = NDArray[np.float64]


def evaluate_arm(
    encoder: str,
    train: Sequence[StudySlide],
    test: Sequence[StudySlide],
    folder: Path,
    config: FinetuneConfig,
    options: Mapping[str, Any],
) -> Job[dict[str, float]]:
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
    options : mapping
        The study's options of the evaluation.

    Yields
    ------
    Event
        Progress of extraction and measures.

    Returns
    -------
    dict of str to float
        By the names of ``napari-mcm evaluate``. Where training and test slides are the
        same, each slide is tested by classifiers trained on the others.

    Raises
    ------
    ConfigError
        If an option is wrong, or a class has too few labels.
    FeatureError
        If a slide cannot be read, or nothing on it is labelled.
    """
    checked = evaluation_options(options)
    slides = [s for s in dict.fromkeys((*train, *test)) if s.labels is not None]
    sets = yield from _extract(encoder, [s.slide for s in slides], folder, config)
    labels = {}
    for slide, features in zip(slides, sets, strict=True):
        assert slide.labels is not None
        labels[_name(slide)] = label_patches(
            slide.labels, features.grid, checked.covered, checked.columns
        )
        yield Progress("Labelling patches", len(labels), len(slides), "slides")
    named = {_name(slide): found for slide, found in zip(slides, sets, strict=True)}
    patches = gather({"encoder": named}, labels, checked.classes, checked.exclude)
    tested = {_name(slide) for slide in test}
    measuring = _Measuring(patches, tested, bool(set(train) - set(test)), checked)
    return (yield from measuring.all())


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
    try:
        return EvaluateConfig.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{where}: {first['msg']}", "evaluation") from None


def _name(slide: StudySlide) -> str:
    return str(slide.slide)


def _extract(
    encoder: str, slides: Sequence[Path], folder: Path, config: FinetuneConfig
) -> Job[list[FeatureSet]]:
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
    return [read_features(path) for path in done.files]


class _Measuring:
    """All measures of one encoder on the patches of the test slides."""

    def __init__(
        self,
        patches: LabelledPatches,
        tested: set[str],
        disjoint: bool,
        options: EvaluateConfig,
    ) -> None:
        self.patches, self.options = patches, options
        is_test = np.asarray([name in tested for name in patches.slide_names], bool)
        self.test: NDArray[np.bool_] = is_test[patches.slides]
        if not self.test.any():
            raise FeatureError("no patch of the test slides lies in a labelled region")
        # A fixed penalty needs no inner split of the training slides: they are one
        # fold then, which takes far fewer fits.
        chosen = options.protocol.strength
        whole = disjoint and chosen != "inner"
        self.strength = None if chosen == "inner" else float(chosen)
        self.folds = (~self.test).astype(np.int64) if whole else patches.slides
        self.can_learn = bool((~self.test).any()) or len(patches.slide_names) > 1
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

    def all(self) -> Job[dict[str, float]]:
        """Compute all measures that the labels allow."""
        patches = self.patches
        features, labels = patches.features["encoder"], patches.labels
        found: dict[str, float] = {}
        if self.can_learn:
            found |= yield from self._few_shot()
        found |= yield from self._similarity()
        if self.can_learn:
            scores, _ = yield from linear_probe(
                features, labels, self.folds, self.strength
            )
            found["probe_auroc"] = self._auroc(scores)
            found["probe_accuracy"] = self._accuracy(scores)
            scores = yield from nearest_neighbours(
                features, labels, self.folds, self.options.protocol.neighbours
            )
            found["knn_auroc"] = self._auroc(scores)
            around = patches.surroundings["encoder"]
            scores, _ = yield from linear_probe(
                around, labels, self.folds, self.strength
            )
            found["surroundings_auroc"] = self._auroc(scores)
            gain = found["surroundings_auroc"] - found["probe_auroc"]
            found["neighbour_gain"] = gain
        own = features[self.test]
        found["anisotropy"] = anisotropy(own).value
        found["effective_rank"] = effective_rank(own).value
        found["feature_std"] = feature_spread(own).value
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
        protocol, values = self.options.protocol, []
        meter = Meter("Few-shot probe", protocol.draws, "draws")
        yield meter.progress()
        for scores in few_shot(
            self.patches.features["encoder"],
            self.patches.labels,
            self.folds,
            protocol.few_shot,
            protocol.draws,
            protocol.seed,
        ):
            values.append(self._auroc(scores))
            yield meter.advance()
        return {"few_shot_auroc": float(np.mean(values))}

    def _similarity(self) -> Job[dict[str, float]]:
        patches = self.patches
        queries = self.test
        if self.positive is not None:
            queries = queries & (patches.labels == self.positive)
        found = {}
        candidates_of: dict[str, Candidates] = {
            "similarity_auroc": self.options.protocol.candidates,
            "similarity_own_slide_auroc": "same",
        }
        for name, candidates in candidates_of.items():
            estimate, _ = yield from similarity_auroc(
                patches.features["encoder"],
                patches.labels,
                patches.slides,
                candidates,
                queries,
            )
            found[name] = estimate.value
        return found

    def _auroc(self, scores: Scores) -> float:
        labels, slides = self.patches.labels[self.test], self.patches.slides[self.test]
        _, groups = np.unique(slides, return_inverse=True)
        return macro_auroc(scores[self.test], labels, groups, self.positive).value

    def _accuracy(self, scores: Scores) -> float:
        return balanced_accuracy(
            scores[self.test], self.patches.labels[self.test]
        ).value
