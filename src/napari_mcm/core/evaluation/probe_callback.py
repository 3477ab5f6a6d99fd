"""A probe for use during training, which measures an encoder on labelled patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.evaluation.intervals import macro_auroc
from napari_mcm.core.evaluation.labels import (
    check_counts,
    find_label_files,
    label_patches,
    smallest_class_count,
)
from napari_mcm.core.evaluation.metrics import Candidates, similarity_auroc
from napari_mcm.core.evaluation.probes import Labels, deal_folds, few_shot
from napari_mcm.core.features.feature_set import Status
from napari_mcm.core.features.patches import read_patches
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.jobs import Job, Meter, Note, run
from napari_mcm.core.slides import Slide

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Pixels (n, h, w, 3) to features (n, D)."""

_BATCH = 64
_HALVES = 2


class HeldOutProbe:
    """Labelled patches on which an encoder is measured repeatedly.

    The two metrics are the primary ones of an evaluation, with the same draws at every
    call, so that a curve over a training shows the encoder and not the draw.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (N, h, w, 3)
        Patches; they are kept, not copied.
    classes : sequence of str
        Class of each patch.
    groups : sequence of str
        Slide or patient of each patch. Labels are drawn from all groups but one, and tested
        on that one; with a single group, half of the patches are tested on.
    k : int, optional
        Labels per class.
    draws : int, optional
        Draws of those labels.
    seed : int, optional
        Random seed of the draws.

    Attributes
    ----------
    names, group_names : tuple of str
        Names of the classes, and of the groups.
    labels, groups : ndarray of int64, shape (N,)
        Class and group of each patch, as indices into these.

    Raises
    ------
    FeatureError
        If the numbers of patches, classes and groups differ, or a class has too few
        patches.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        classes: Sequence[str],
        groups: Sequence[str],
        k: int = 10,
        draws: int = 20,
        seed: int = 0,
    ) -> None:
        if not len(pixels) == len(classes) == len(groups):
            raise FeatureError(
                f"{len(pixels)} patches with {len(classes)} classes and {len(groups)} "
                "groups: one of each is needed for each patch"
            )
        self.pixels = pixels
        self.names, self.labels = _numbered(classes)
        self.group_names, self.groups = _numbered(groups)
        self._k, self._draws, self._seed = k, draws, seed
        alone = len(self.group_names) < 2
        self._folds = _folds(self.labels, self.groups, seed)
        # A single group has no other groups to search in.
        self._candidates: Candidates = "all" if alone else "other"
        check_counts(self.labels, self.names, self._folds, k)

    def __len__(self) -> int:
        return len(self.pixels)

    def __call__(self, encode: Encode) -> dict[str, float]:
        """Measure an encoder.

        Parameters
        ----------
        encode : callable
            Maps uint8 (n, h, w, 3) to float32 (n, D); called with up to 64 patches.

        Returns
        -------
        dict of str to float
            ``few_shot_auroc`` and ``similarity_auroc``; NaN where features are not finite.
        """
        return run(self.steadily(encode))

    def of_features(self, features: NDArray[np.float32]) -> dict[str, float]:
        """Measure given features of the patches.

        Parameters
        ----------
        features : ndarray of float32, shape (N, D)
            One row per patch.

        Returns
        -------
        dict of str to float
            ``few_shot_auroc`` and ``similarity_auroc``; NaN where features are not finite.

        Raises
        ------
        FeatureError
            If the number of rows differs from that of patches.
        """
        return run(self._judge(features))

    def steadily(self, encode: Encode, batch: int = _BATCH) -> Job[dict[str, float]]:
        """Measure an encoder as a call does, as a job that yields after each batch and draw.

        Parameters
        ----------
        encode : callable
            Maps uint8 (n, h, w, 3) to float32 (n, D).
        batch : int, optional
            Patches per call of `encode`.

        Yields
        ------
        Progress
            In patches, then in draws and queries.

        Returns
        -------
        dict of str to float
            ``few_shot_auroc`` and ``similarity_auroc``; NaN where features are not finite.
        """
        parts, meter = [], Meter("Probing", len(self))
        for start in range(0, len(self), batch):
            pixels = self.pixels[start : start + batch]
            parts.append(np.asarray(encode(pixels), np.float32))
            yield meter.advance(len(pixels))
        return (yield from self._judge(np.concatenate(parts)))

    def _judge(self, features: NDArray[np.float32]) -> Job[dict[str, float]]:
        if len(features) != len(self):
            raise FeatureError(f"{len(features)} features of {len(self)} patches")
        # A diverging encoder must not stop the training that it is measured in.
        if not np.isfinite(features).all():
            return {"few_shot_auroc": float("nan"), "similarity_auroc": float("nan")}
        drawn = few_shot(
            features, self.labels, self._folds, self._k, self._draws, self._seed
        )
        values, meter = [], Meter("Probing", self._draws, "draws")
        for scores in drawn:
            values.append(macro_auroc(scores, self.labels, self._folds).value)
            yield meter.advance()
        alike, _ = yield from similarity_auroc(
            features, self.labels, self.groups, self._candidates
        )
        return {
            "few_shot_auroc": float(np.mean(values)),
            "similarity_auroc": alike.value,
        }


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], Labels]:
    kinds, index = np.unique(np.asarray(names, str), return_inverse=True)
    return tuple(map(str, kinds)), index.reshape(-1).astype(np.int64)


def _folds(labels: Labels, groups: Labels, seed: int) -> Labels:
    return deal_folds(groups) if groups.any() else _halves(labels, seed)


def _halves(labels: Labels, seed: int) -> Labels:
    """Divide each class's patches into two folds, by the seed."""
    rng = np.random.default_rng((seed, 41))
    folds = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        folds[rows] = np.arange(len(rows)) % _HALVES
    return folds


def read_probe(
    slides: Sequence[Slide],
    grids: Sequence[PatchGrid],
    labels: Sequence[Path],
    *,
    exclude: Sequence[str] = ("undetermined",),
    most: int = 64,
    k: int = 10,
    draws: int = 20,
    seed: int = 0,
) -> Job[HeldOutProbe]:
    """Read labelled patches of slides for a probe, as a job.

    A class with too few patches to draw from is left out with a warning, so that the
    training beside which the probe runs does not fail because of it.

    Parameters
    ----------
    slides : sequence of Slide
        Open slides, none of them in the training set. Each is a group.
    grids : sequence of PatchGrid
        Patches of each slide.
    labels : sequence of Path
        A folder of label files, or one file per slide, as for
        :func:`~napari_mcm.core.evaluation.labels.find_label_files`.
    exclude : sequence of str, optional
        Classes to leave out.
    most : int, optional
        Maximum number of patches per class and slide, drawn by the seed.
    k : int, optional
        Labels per class.
    draws : int, optional
        Draws of those labels.
    seed : int, optional
        Random seed.

    Yields
    ------
    Progress
        In patches.
    Note
        If classes are left out.

    Returns
    -------
    HeldOutProbe
        The probe.

    Raises
    ------
    ConfigError
        If label files are missing or damaged, or do not fit the slides.
    GridError
        If a geometry is damaged.
    FeatureError
        If no patch is labelled, or too few are.
    """
    files = find_label_files(labels, [slide.name for slide in slides])
    pixels: list[NDArray[np.uint8]] = []
    classes: list[str] = []
    groups: list[str] = []
    meter = Meter("Reading labelled patches", None)
    for number, (slide, grid) in enumerate(zip(slides, grids, strict=True)):
        if slide.name not in files:
            continue
        named = np.asarray(label_patches(files[slide.name], grid), str)
        rows = _some(named, exclude, most, (seed, number))
        for start in range(0, len(rows), 8):
            part = rows[start : start + 8]
            for row, patch in zip(part, read_patches(slide, grid, part), strict=True):
                if patch.status == Status.OK and patch.pixels is not None:
                    pixels.append(patch.pixels)
                    classes.append(str(named[row]))
                    groups.append(slide.name)
            yield meter.advance(len(part))
    if not pixels:
        raise FeatureError("no patch of these slides lies in a labelled region")
    rare = _rare(classes, groups, k, seed)
    kept = [row for row, name in enumerate(classes) if name not in rare]
    if rare and kept:
        yield Note(
            f"the probe leaves out {', '.join(rare)}: fewer than {k} labelled patches "
            "for training",
            "warning",
        )
    # If every class is too rare, HeldOutProbe raises the error that names one.
    kept = kept or list(range(len(classes)))
    return HeldOutProbe(
        np.stack([pixels[row] for row in kept]),
        [classes[row] for row in kept],
        [groups[row] for row in kept],
        k,
        draws,
        seed,
    )


def _rare(
    classes: Sequence[str], groups: Sequence[str], k: int, seed: int
) -> tuple[str, ...]:
    """Return the classes of which some fold leaves fewer than `k` patches to draw from."""
    (names, labels), (_, held) = _numbered(classes), _numbered(groups)
    least = smallest_class_count(labels, _folds(labels, held, seed))
    return tuple(name for name, n in zip(names, least, strict=True) if n < k)


def _some(
    named: NDArray[np.str_], exclude: Sequence[str], most: int, key: tuple[int, ...]
) -> list[int]:
    """Draw up to `most` patches of each class."""
    rng = np.random.default_rng((*key, 43))
    rows: list[int] = []
    for name in sorted(set(named.tolist()) - {"", *exclude}):
        there = np.flatnonzero(named == name)
        rows += rng.permutation(there)[:most].tolist()
    return sorted(rows)
