"""Predict one slide with a trained run, and see which patches the models attend to.

The features are checked against those that the run was trained on. The models of the
folds that tested the slide predict it (all models where none did), and their
probabilities and attention are averaged. Nothing is written: `mil attention` writes
files from the result, and the viewer draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.encoders.learned_from import warn_of_seen
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.interchange import in_neighbourhood
from napari_mcm.core.heatmaps import Heatmap
from napari_mcm.core.heatmaps.heatmap import name_context
from napari_mcm.core.mil.attention_maps import (
    Scaling,
    attention_map,
    effective_number,
    top_patches,
    usable,
)
from napari_mcm.core.mil.bags import Vectors, source_of
from napari_mcm.core.mil.config import RunNeighbourhoodConfig
from napari_mcm.core.mil.ensemble import Ensemble, load_ensemble
from napari_mcm.core.mil.seen import find_trained_on
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.threads import report_while_running, run_in_thread

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SlidePrediction:
    """The classes of one slide, and the attention of the models that predict them.

    Attributes
    ----------
    slide : str
        Name of the slide.
    features : FeatureSet
        Features of its P patches, averaged over the neighbourhood of the run.
    probabilities : ndarray of float64, shape (C,)
        Mean over the models.
    attention : ndarray of float64, shape (N,) or (C, N)
        Mean over the models, for the N patches that have features. Each row sums to 1.
    classes : tuple of str
        Names of the C classes.
    models : int
        Number of models that are averaged.
    shown, caveat : str
        What the attention is; a reservation to show with it, or "".
    unseen : bool
        Whether the slide is in the training set of none of the models.
    """

    slide: str
    features: FeatureSet
    probabilities: Floats
    attention: Floats
    classes: tuple[str, ...]
    models: int
    shown: str
    caveat: str
    unseen: bool

    @property
    def per_class(self) -> bool:
        """Whether each class has attention of its own.

        Returns
        -------
        bool
        """
        return self.attention.ndim == 2

    @property
    def winner(self) -> int:
        """Index of the most probable class.

        Returns
        -------
        int
        """
        return int(self.probabilities.argmax())

    @property
    def vectors(self) -> Vectors:
        """Features of the patches that have any.

        Returns
        -------
        ndarray of float32, shape (N, D)
        """
        return self.features.features[usable(self.features)]

    def weights_of(self, number: int) -> Floats:
        """Return the attention to a class.

        Parameters
        ----------
        number : int
            Index of the class.

        Returns
        -------
        ndarray of float64, shape (N,)
            For the patches that have features; sums to 1.
        """
        return self.attention[number] if self.per_class else self.attention

    def grid_weights(self, number: int) -> Floats:
        """Return the attention to a class over the whole grid.

        Parameters
        ----------
        number : int
            Index of the class.

        Returns
        -------
        ndarray of float64, shape (P,)
            NaN for patches without features.
        """
        # NaN, not 0: a patch without features is drawn as missing, not as unimportant.
        weights = np.full(len(self.features), np.nan)
        weights[usable(self.features)] = self.weights_of(number)
        return weights

    def title(self, number: int) -> str:
        """Return what the attention to a class is called: ``attention to tumour``.

        Where features are averages, their neighbourhood follows.

        Parameters
        ----------
        number : int
            Index of the class.

        Returns
        -------
        str
        """
        title = self.shown
        if self.per_class:
            title = f"{self.shown} to {self.classes[number]}"
        return name_context(title, self.features.neighbourhood)

    def heatmap(self, scaling: Scaling, number: int) -> Heatmap:
        """Return the attention to a class as a heatmap.

        Parameters
        ----------
        scaling : {"rank", "minmax", "raw"}
            How weights become colors, see :func:`.attention_map`.
        number : int
            Index of the class.

        Returns
        -------
        Heatmap
        """
        weights = self.weights_of(number)
        return attention_map(self.features, weights, scaling, self.title(number))

    def effective(self, number: int) -> float:
        """Return the effective number of patches that a class attends to.

        Parameters
        ----------
        number : int
            Index of the class.

        Returns
        -------
        float
            1 to N, see :func:`.effective_number`.
        """
        return effective_number(self.weights_of(number))

    def top(self, number: int, count: int) -> list[int]:
        """List the patches with the greatest attention to a class, best first.

        Parameters
        ----------
        number : int
            Index of the class.
        count : int
            How many patches at most.

        Returns
        -------
        list of int
            Rows of the patch grid.
        """
        return top_patches(self.grid_weights(number), count)


def predict_slide(
    run_dir: Path,
    slide: str,
    features: FeatureSet,
    where: Path,
    fold: str | None = None,
    compute: ComputeConfig | None = None,
    asked: RunNeighbourhoodConfig | None = None,
) -> Job[tuple[SlidePrediction, Ensemble]]:
    """Predict one slide with the models of a run.

    Parameters
    ----------
    run_dir : Path
        Folder of a finished `mil train`.
    slide : str
        Name of the slide, as the run's table has it.
    features : FeatureSet
        Features of the slide, of single patches or as those the run was trained on.
    where : Path
        Their file or folder, for errors.
    fold : str, optional
        Use the models of this fold only. By default, those of the folds that tested the
        slide, or all models where there is no such fold.
    compute : ComputeConfig, optional
        Device and precision.
    asked : RunNeighbourhoodConfig, optional
        The neighbourhood that the user asked for, to be refused if it is not the run's.

    Yields
    ------
    Event
        Progress, and a note where the slide is in the training set.

    Returns
    -------
    tuple of (SlidePrediction, Ensemble)
        The prediction, and the models that made it.

    Raises
    ------
    ConfigError
        If no patch has features, the run has no such fold, or another neighbourhood than
        the one asked for.
    FeatureError
        If the features are of another encoder than those the run was trained on, or
        averages over another neighbourhood.
    RunError
        If the run cannot be used.
    """
    ensemble = yield from run_in_thread(
        "Reading the run", load_ensemble, run_dir, fold, slide, compute
    )
    # Features of another encoder of the same length would give plausible nonsense.
    ensemble.check_asked(asked or RunNeighbourhoodConfig())
    features = yield from run_in_thread(
        "Averaging over neighbours",
        in_neighbourhood,
        features,
        ensemble.neighbourhood,
        where,
    )
    origin = source_of(features.dim, features.encoder, features.neighbourhood)
    ensemble.check(origin, where)
    identity = features.grid.slide
    mark = {slide: str(identity.get("fingerprint") or "")}
    unseen = not find_trained_on(run_dir, ensemble.folds, mark)
    if not unseen:
        yield Note(
            f"{slide} was in the training set of models that are used here; their "
            "prediction is optimistic",
            "warning",
        )
    if warning := warn_of_seen(features.encoder, [identity]):
        yield Note(warning, "warning")
    vectors = features.features[usable(features)]
    if not len(vectors):
        raise ConfigError(
            f"slide {slide} has no patch with features",
            where,
            "Extract its features again",
        )
    progress = Progress(f"Computing attention on {slide}", 0, None, "patches")
    work = ensemble.predict_with_attention(vectors)
    found = yield from report_while_running(work, progress)
    prediction = SlidePrediction(
        slide,
        features,
        found.probabilities,
        found.attention,
        ensemble.classes,
        len(ensemble.models),
        ensemble.models[0].shown,
        ensemble.models[0].caveat,
        unseen,
    )
    return prediction, ensemble
