"""The models of a run, saved, loaded and averaged.

An ensemble's probability is the mean over its M models, and so is its attention::

    p(slide) = 1/M · Σ_m softmax(logits_m),   a = 1/M · Σ_m a_m
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from napari_mcm.core.encoders.compute import ComputeConfig, choose_device
from napari_mcm.core.errors import ConfigError, FeatureError, RunError, WeightsError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.mil.bags import FeatureSource, Vectors, covered
from napari_mcm.core.mil.config import AggregatorConfig, RunNeighbourhoodConfig
from napari_mcm.core.mil.models import Aggregator, make_aggregator
from napari_mcm.core.mil.results import read_folds
from napari_mcm.core.mil.trainer import pad, run_step
from napari_mcm.core.runtime.files import atomic_path, write_json

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AttentionOutput:
    """Prediction of an ensemble on one slide, with attention.

    Attributes
    ----------
    probabilities : ndarray of float64, shape (C,)
        Mean over the models.
    attention : ndarray of float64, shape (N,) or (C, N)
        Mean over the models; sums to 1 over the patches.
    """

    probabilities: Floats
    attention: Floats


class Ensemble:
    """Trained models of one run whose probabilities are averaged.

    Parameters
    ----------
    saved : sequence of SavedModel
        At least one; all with the same classes.
    compute : ComputeConfig, optional
        Where to compute.

    Attributes
    ----------
    models : list of Aggregator
        The models, on the device.
    device : torch.device
        Where they compute.
    """

    def __init__(
        self, saved: Sequence[SavedModel], compute: ComputeConfig | None = None
    ) -> None:
        self.saved = list(saved)
        self.device = choose_device(compute or ComputeConfig())
        self.models: list[Aggregator] = [one.model.to(self.device) for one in saved]

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes.

        Returns
        -------
        tuple of str
            In the order of the scores.
        """
        return self.saved[0].classes

    @property
    def neighbourhood(self) -> NeighbourhoodConfig:
        """Return what the features that the models were trained on cover.

        Returns
        -------
        NeighbourhoodConfig
            The patch alone for runs of earlier versions.
        """
        return self.saved[0].origin.neighbourhood

    @property
    def folds(self) -> list[str]:
        """Return the folds that the models belong to.

        Returns
        -------
        list of str
            Each name once.
        """
        return list(dict.fromkeys(one.fold for one in self.saved))

    @property
    def per_class(self) -> bool:
        """Return whether attention has one row per class.

        Returns
        -------
        bool
            True for CLAM-MB and DSMIL.
        """
        return self.models[0].per_class

    def check(self, origin: FeatureSource, where: Path) -> None:
        """Check that features are of the encoder that the models were trained on.

        Parameters
        ----------
        origin : FeatureSource
            Source of the features.
        where : Path
            Their file or folder, for the error.

        Raises
        ------
        FeatureError
            If they are of another encoder, as far as the files record it, or averages
            over another neighbourhood.
        """
        trained = self.saved[0].origin
        if origin.neighbourhood != trained.neighbourhood:
            raise FeatureError(
                f"has features over {covered(origin.neighbourhood)}; the run was trained "
                f"on those over {covered(trained.neighbourhood)}",
                where,
                "Use features of single patches: they are averaged as the run needs",
            )
        # Files of other tools record no fingerprint: then only the length can be checked.
        both = trained.fingerprint and origin.fingerprint
        if origin.dim != trained.dim or (both and both != trained.fingerprint):
            raise FeatureError(
                f"has features of {origin.encoder or 'another encoder'} "
                f"({origin.dim} long); the run was trained on those of "
                f"{trained.encoder or 'an encoder'} ({trained.dim})",
                where,
                "Extract with the encoder that the run was trained on",
            )

    def check_asked(self, asked: RunNeighbourhoodConfig) -> None:
        """Check that a neighbourhood that was asked for is that of the models.

        Parameters
        ----------
        asked : RunNeighbourhoodConfig
            The options given; None for those that were not.

        Raises
        ------
        ConfigError
            If it differs: features over other squares would give plausible nonsense.
        """
        known = self.neighbourhood
        weights = asked.weights if known.radius else None
        for flag, given, own in (
            ("--context", asked.radius, known.radius),
            ("--context-weights", weights, known.weights),
        ):
            if given is not None and given != own:
                raise ConfigError(
                    f"is {given}, and the run was trained with {own}",
                    flag,
                    "Leave it out: features are averaged as the run needs",
                )

    def predict(self, vectors: Vectors) -> Generator[None, None, Floats]:
        """Return the mean class probabilities of a slide.

        Parameters
        ----------
        vectors : ndarray of floating, shape (N, D)
            Features of the slide's patches.

        Yields
        ------
        None
            While a long bag is computed, so that the caller can cancel.

        Returns
        -------
        ndarray of float64, shape (C,)
            Probabilities.
        """
        found = []
        for model in self.models:
            logits, _ = yield from self._run(model, vectors, attention=False)
            # Probabilities are averaged, not logits, whose scale differs between models.
            found.append(logits.softmax(dim=0).numpy())
        mean: Floats = np.mean(np.asarray(found, np.float64), axis=0)
        return mean

    def predict_with_attention(
        self, vectors: Vectors
    ) -> Generator[None, None, AttentionOutput]:
        """Return the mean class probabilities and attention of a slide.

        Parameters
        ----------
        vectors : ndarray of floating, shape (N, D)
            Features of the slide's patches.

        Yields
        ------
        None
            While a long bag is computed, so that the caller can cancel.

        Returns
        -------
        AttentionOutput
            Probabilities and attention.
        """
        scores, weights = [], []
        for model in self.models:
            logits, attention = yield from self._run(model, vectors, attention=True)
            assert attention is not None
            scores.append(logits.softmax(dim=0).numpy())
            weights.append(attention.numpy())
        return AttentionOutput(
            np.mean(np.asarray(scores, np.float64), axis=0),
            np.mean(np.asarray(weights, np.float64), axis=0),
        )

    def _run(
        self, model: Aggregator, vectors: Vectors, attention: bool
    ) -> Generator[None, None, tuple[Tensor, Tensor | None]]:
        def work() -> tuple[Tensor, Tensor | None]:
            model.eval()
            with torch.inference_mode():
                bag, _ = pad([vectors], self.device)
                state = model.aggregate(bag, with_attention=attention)
                weights = state.attention if attention else None
                row = None if weights is None else weights[0].float().cpu()
                return state.logits[0].float().cpu(), row

        return (yield from run_step("predict", work, len(vectors)))


def load_ensemble(
    run_dir: Path,
    fold: str | None = None,
    unseen: str | None = None,
    compute: ComputeConfig | None = None,
) -> Ensemble:
    """Load the models of a finished run.

    Parameters
    ----------
    run_dir : Path
        Output directory of `mil train`.
    fold : str, optional
        Load this fold's models only.
    unseen : str, optional
        Load only models that do not have this slide in their training set, if there are
        any.
    compute : ComputeConfig, optional
        Where to compute.

    Returns
    -------
    Ensemble
        The models, ready to predict.

    Raises
    ------
    RunError
        If the directory is not a run, or has no finished model.
    ConfigError
        If there is no such fold.
    WeightsError
        If a model is missing or damaged.
    """
    described = read_folds(run_dir)
    folders = sorted((Path(run_dir) / "models").glob("fold_*/recipe.json"))
    saved = [load_model(file.parent) for file in folders]
    if not saved:
        raise RunError(
            "has no finished model", run_dir, "Resume it with mil train --resume"
        )
    if len({one.classes for one in saved}) > 1:
        raise RunError("holds models of different classes", run_dir)
    if len({one.origin.neighbourhood for one in saved}) > 1:
        raise RunError("holds models of different neighbourhoods (--context)", run_dir)
    names = list(dict.fromkeys(one.fold for one in saved))
    if fold is not None:
        saved = [one for one in saved if one.fold == fold]
        if not saved:
            raise ConfigError(
                f"there is no fold {fold}", run_dir, f"Its folds are {', '.join(names)}"
            )
    elif unseen is not None:
        tested = [f["name"] for f in described["folds"] if unseen in f["test"]]
        # Only models that never saw the slide give an unbiased prediction.
        saved = [one for one in saved if one.fold in tested] or saved
    return Ensemble(saved, compute)


def was_trained_on(run_dir: Path, folds: Sequence[str]) -> set[str]:
    """Return the slides that the models of some folds were trained on or stopped by.

    Parameters
    ----------
    run_dir : Path
        Output directory of `mil train`.
    folds : sequence of str
        Names of the folds.

    Returns
    -------
    set of str
        Names of the training and validation slides.
    """
    found: set[str] = set()
    # Validation slides chose the epoch, so predictions of them are optimistic, too.
    for fold in read_folds(run_dir)["folds"]:
        if fold["name"] in folds:
            found |= {*fold["train"], *fold["validation"]}
    return found


SCHEMA, VERSION = "napari-mcm/mil", 1

# The largest size that the options accept.
_MOST = 65_536


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A trained aggregator.

    Attributes
    ----------
    model : Aggregator
        On the CPU, in evaluation mode.
    config : AggregatorConfig
        Its options, without ``auto``.
    classes : tuple of str
        In the order of its scores.
    origin : FeatureSource
        Source of the features that it was trained on.
    fold : str
        Name of the fold whose test slides it has not seen.
    seed : int
        Random seed of its training.
    """

    model: Aggregator
    config: AggregatorConfig
    classes: tuple[str, ...]
    origin: FeatureSource
    fold: str
    seed: int


def save_model(
    folder: Path,
    weights: dict[str, Tensor],
    config: AggregatorConfig,
    classes: Sequence[str],
    origin: FeatureSource,
    fold: str,
    seed: int,
) -> None:
    """Write a trained aggregator as ``model.safetensors`` and ``recipe.json``.

    Parameters
    ----------
    folder : Path
        Gets the two files.
    weights : dict of str to Tensor
        The aggregator's state.
    config : AggregatorConfig
        Its options.
    classes : sequence of str
        Names of the classes, in the order of the scores.
    origin : FeatureSource
        Source of the features that it was trained on.
    fold : str
        Name of the fold.
    seed : int
        Random seed of its training.
    """
    # safetensors rejects views that are not contiguous.
    ready = {name: t.detach().cpu().contiguous() for name, t in weights.items()}
    with atomic_path(folder / "model.safetensors") as part:
        save_file(ready, part)
    recipe = {
        "schema": SCHEMA,
        "version": VERSION,
        "aggregator": config.settled.model_dump(mode="json"),
        "classes": list(classes),
        "features": origin.describe(),
        "fold": fold,
        "seed": seed,
    }
    # The recipe comes last: `load_ensemble` finds models by it, so these are complete.
    write_json(folder / "recipe.json", recipe)


def load_model(folder: Path) -> SavedModel:
    """Load a trained aggregator.

    Parameters
    ----------
    folder : Path
        Holds ``model.safetensors`` and ``recipe.json``.

    Returns
    -------
    SavedModel
        The model, on the CPU.

    Raises
    ------
    WeightsError
        If it is missing, damaged, of another version, or its weights do not fit.
    """
    recipe = _read_recipe(folder / "recipe.json")
    file = folder / "model.safetensors"
    try:
        config = AggregatorConfig.model_validate(recipe["aggregator"])
        classes = tuple(str(name) for name in recipe["classes"])
        origin = FeatureSource.from_description(recipe["features"])
        fold, seed = str(recipe["fold"]), int(recipe["seed"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"is incomplete ({reason})", folder / "recipe.json"
        ) from None
    # A damaged recipe must not make the network allocate any amount of memory.
    if not (1 <= origin.dim <= _MOST and 2 <= len(classes) <= _MOST):
        raise WeightsError("states impossible sizes", folder / "recipe.json")
    model = make_aggregator(config, origin.dim, len(classes))
    _load_weights(model, file)
    return SavedModel(model.eval(), config, classes, origin, fold, seed)


def _load_weights(model: Aggregator, file: Path) -> None:
    if not file.is_file():
        raise WeightsError("is missing", file, "Train again, or copy the whole run")
    try:
        weights = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"is damaged ({error})", file) from error
    # Names and shapes are compared first: PyTorch's own message lists every tensor.
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if wanted != found:
        wrong = sorted(n for n in wanted | found if wanted.get(n) != found.get(n))
        raise WeightsError(
            f"does not fit its recipe.json (first at {wrong[0]})",
            file,
            "The two files belong to different runs; copy the whole run",
        )
    model.load_state_dict(weights)


def _read_recipe(file: Path) -> dict[str, Any]:
    try:
        recipe = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot be read ({error})", file) from error
    if not isinstance(recipe, dict) or recipe.get("schema") != SCHEMA:
        raise WeightsError("is not a slide classifier of napari-mcm", file)
    if recipe.get("version") != VERSION:
        raise WeightsError(
            f"has version {recipe.get('version')}, this program reads {VERSION}",
            file,
            "Update napari-mcm",
        )
    return recipe
