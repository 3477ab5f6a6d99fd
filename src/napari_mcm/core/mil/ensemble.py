"""The models of a run, and what they say together."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_mcm.core.background import steadily
from napari_mcm.core.encoders.compute import ComputeConfig, choose_device
from napari_mcm.core.errors import ConfigError, FeatureError, RunError
from napari_mcm.core.mil.bags import Origin, Vectors
from napari_mcm.core.mil.learner import LONG_BAG, pad
from napari_mcm.core.mil.models import Aggregator
from napari_mcm.core.mil.results import read_folds
from napari_mcm.core.mil.saved import SavedModel, load_model

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Looked:
    """What an ensemble makes of one slide.

    Attributes
    ----------
    probabilities : ndarray of float64, shape (C,)
        The models' mean.
    attention : ndarray of float64, shape (N,) or (C, N)
        The models' mean; sums to 1 over the patches.
    """

    probabilities: Floats
    attention: Floats


class Ensemble:
    """Trained models of one run whose probabilities are averaged.

    Parameters
    ----------
    saved : sequence of SavedModel
        One at least, all with the same classes.
    compute : ComputeConfig, optional
        Where to compute.
    """

    def __init__(
        self, saved: Sequence[SavedModel], compute: ComputeConfig | None = None
    ) -> None:
        self.saved = list(saved)
        self.device = choose_device(compute or ComputeConfig())
        self.models: list[Aggregator] = [one.model.to(self.device) for one in saved]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.saved[0].classes

    @property
    def folds(self) -> list[str]:
        """The folds that models are of."""
        return list(dict.fromkeys(one.fold for one in self.saved))

    @property
    def per_class(self) -> bool:
        """Whether attention has a row for each class."""
        return self.models[0].per_class

    def check(self, origin: Origin, where: Path) -> None:
        """See that features are of the encoder that the models were trained on.

        Raises
        ------
        FeatureError
            If they are not, as far as files say.
        """
        trained = self.saved[0].origin
        both = trained.fingerprint and origin.fingerprint
        if origin.dim != trained.dim or (both and both != trained.fingerprint):
            raise FeatureError(
                f"has features of {origin.encoder or 'another encoder'} "
                f"({origin.dim} long); the run was trained on those of "
                f"{trained.encoder or 'an encoder'} ({trained.dim})",
                where,
                "Extract with the encoder that the run was trained on",
            )

    def predict(self, vectors: Vectors) -> Generator[None, None, Floats]:
        """Give the mean probabilities (C,) of a slide from its features (N, D)."""
        found = []
        for model in self.models:
            logits, _ = yield from self._run(model, vectors, attention=False)
            found.append(logits.softmax(dim=0).numpy())
        mean: Floats = np.mean(np.asarray(found, np.float64), axis=0)
        return mean

    def look(self, vectors: Vectors) -> Generator[None, None, Looked]:
        """Give mean probabilities and attention of a slide."""
        scores, weights = [], []
        for model in self.models:
            logits, attention = yield from self._run(model, vectors, attention=True)
            assert attention is not None
            scores.append(logits.softmax(dim=0).numpy())
            weights.append(attention.numpy())
        return Looked(
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

        return (yield from steadily(work, len(vectors) >= LONG_BAG))


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
        That `mil train` wrote.
    fold : str, optional
        Take this fold's models only.
    unseen : str, optional
        Take only models that have not learned from this slide, where there are any.
    compute : ComputeConfig, optional
        Where to compute.

    Raises
    ------
    RunError
        If it is no run, or has no finished model.
    ConfigError
        If there is no such fold.
    """
    described = read_folds(run_dir)
    folders = sorted((Path(run_dir) / "models").glob("fold_*/recipe.json"))
    saved = [load_model(file.parent) for file in folders]
    if not saved:
        raise RunError(
            "has no finished model", run_dir, "Go on with mil train --resume"
        )
    if len({one.classes for one in saved}) > 1:
        raise RunError("holds models of different classes", run_dir)
    names = list(dict.fromkeys(one.fold for one in saved))
    if fold is not None:
        saved = [one for one in saved if one.fold == fold]
        if not saved:
            raise ConfigError(f"there is no fold {fold}", hint=f"It has {names}")
    elif unseen is not None:
        tested = [f["name"] for f in described["folds"] if unseen in f["test"]]
        saved = [one for one in saved if one.fold in tested] or saved
    return Ensemble(saved, compute)


def learned_from(run_dir: Path, folds: Sequence[str]) -> set[str]:
    """Name the slides that the models of some folds were trained or stopped by."""
    found: set[str] = set()
    for fold in read_folds(run_dir)["folds"]:
        if fold["name"] in folds:
            found |= {*fold["train"], *fold["validation"]}
    return found
