"""The windows around each patch, and what a head makes of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.neighbourhood import has_features
from napari_mcm.core.mcm.model import ContextModel

CHUNK = 256  # windows at a time

Placements = Literal["central", "all"]
_KINDS: tuple[Placements, ...] = ("central", "all")
Rows = NDArray[np.int64]


def windows_around(features: FeatureSet, s: int) -> Rows:
    """Return all windows of s × s places that hold a patch with features.

    Returns rows of the features, shape (W, s²), in row-major order of the places; -1
    where a place has no patch with features. Windows may reach beyond the lattice.
    """
    present = has_features(features)
    lattice = features.grid.lattice
    corner = lattice.min(axis=0)
    height, width = lattice.max(axis=0) - corner + 1
    edge = s - 1
    index = np.full((height + 2 * edge, width + 2 * edge), -1, np.int64)
    places = lattice - corner + edge
    if len(np.unique(places, axis=0)) != len(places):
        raise ValueError("patches share a place of the lattice")
    index[tuple(places[present].T)] = np.flatnonzero(present)
    view = np.lib.stride_tricks.sliding_window_view(index, (s, s))
    windows = view.reshape(-1, s * s)
    return np.ascontiguousarray(windows[(windows >= 0).any(axis=1)])


def places_of(s: int, placements: Placements) -> NDArray[np.bool_]:
    """Return at which places of a window its outputs are used, shape (s²,).

    ``"central"``: the place in the middle, or the four around it where s is even.
    """
    if placements == "all":
        return np.ones(s * s, bool)
    near = np.abs(np.arange(s) - (s - 1) / 2) <= 0.5
    return np.asarray(np.outer(near, near)).reshape(-1)


def contextualise(
    head: nn.Module,
    features: FeatureSet,
    s: int,
    hide: bool = False,
    shuffle: int | None = None,
) -> dict[Placements, FeatureSet]:
    """Replace each patch's features by the mean of the head's outputs at its places.

    Parameters
    ----------
    head : Module
        Takes features (V, D), and which of the (W, s²) places are visible and which are
        asked; returns one row for each of those asked.
    features : FeatureSet
        Features of the student, not averaged or averaged.
    s : int
        Places per side of a window.
    hide : bool, optional
        Mask the patch that is asked for, all others stay visible; in one window for each
        patch, as each takes a pass of its own.
    shuffle : int, optional
        Seed with which the patches of each window are put at random places.

    Returns
    -------
    dict of str to FeatureSet
        Same patches, NaN where there were no features: means over the central windows
        around each patch and, unless it is masked, over all.
    """
    windows = windows_around(features, s)
    inside = {
        kind: np.broadcast_to(places_of(s, kind), windows.shape) for kind in _KINDS
    }
    if hide:
        first = np.arange(s * s) == places_of(s, "central").argmax()
        inside = {"central": np.broadcast_to(first, windows.shape)}
    if shuffle is not None:
        draws = np.random.default_rng(shuffle).random(windows.shape)
        order = draws.argsort(axis=1)
        windows = np.take_along_axis(windows, order, axis=1)
        inside = {k: np.take_along_axis(v, order, axis=1) for k, v in inside.items()}
    asked = np.any(list(inside.values()), axis=0) & (windows >= 0)
    kept = asked.any(axis=1)
    windows, asked = windows[kept], asked[kept]
    found = _outputs(head, features.features, windows, asked, hide)
    rows = windows[asked]
    results: dict[Placements, FeatureSet] = {}
    for kind, places in inside.items():
        # (N, outputs): every patch with features has windows of each kind.
        counts = csr_array(
            (places[kept][asked].astype(np.float32), (rows, np.arange(len(rows)))),
            shape=(len(features), len(rows)),
        )
        with np.errstate(invalid="ignore"):
            means = counts @ found / counts.sum(axis=1)[:, None]
        results[kind] = replace(features, features=np.asarray(means, np.float32))
    return results


@torch.inference_mode()
def _outputs(
    head: nn.Module,
    features: NDArray[np.float32],
    windows: Rows,
    asked: NDArray[np.bool_],
    hide: bool,
) -> NDArray[np.float32]:
    """Return the head's outputs at the places that are asked, in row-major order."""
    found = []
    for start in range(0, len(windows), CHUNK):
        rows, wanted = windows[start : start + CHUNK], asked[start : start + CHUNK]
        visible = (rows >= 0) & ~wanted if hide else rows >= 0
        seen = torch.from_numpy(features[rows[visible]])
        output: Tensor = head(seen, torch.from_numpy(visible), torch.from_numpy(wanted))
        found.append(output.numpy())
    return np.concatenate(found)


class Filled(nn.Module):
    """Ask a head for the tokens of patches, and for its predictions beside them.

    A place that is asked and visible is a token of the patch's own features, which training
    never reads; a place that is asked and not visible is masked.

    Parameters
    ----------
    head : ContextModel
        Stays as it is.
    """

    def __init__(self, head: ContextModel, predict: bool = False) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).eval()
        self.predictor = self.head.predictor if predict else None
        self.head.add_module("predictor", nn.Identity())

    def forward(self, features: Tensor, visible: Tensor, asked: Tensor) -> Tensor:
        """Return tokens (M, width), or with predictions (M, width + teacher_dim)."""
        tokens: Tensor = self.head(features, visible, asked)
        if self.predictor is None:
            return tokens
        return torch.cat([tokens, self.predictor(tokens)], dim=1)
