"""The click test as a measure of a study: a click should find its place in the next section.

Each trial asks the same places of a serial section in the next one, at every context
radius, and keeps their ranks in ``clicks.json``. Places in tissue that the fine-tuning held
out, or on sections that it did not train on, are reported apart from those that it has
seen: the blocks that a run holds out follow from its options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.evaluation.config import SerialConfig
from napari_mcm.core.evaluation.serial import NEAR, WIDE, ClickTest, click_test
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import PatchGrid, common_mpp
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.windows import Source, hold_out_blocks
from napari_mcm.core.registration import (
    Registration,
    read_registration,
    register_sections,
    write_registration,
)
from napari_mcm.core.runtime.files import write_json
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.studies.study_config import SerialPair, StudyConfig
from napari_mcm.core.studies.study_evaluation import average_all, extract_study
from napari_mcm.core.tissue import find_tissue

Mask = NDArray[np.bool_]

ClickFigures = dict[int, dict[str, float]]
"""Value by context radius and measure."""

FILE = "clicks.json"
"""Ranks of all queries, in a trial's folder."""

_RECALLS = {
    "click_recall_1": (1, WIDE),
    "click_recall_10": (10, WIDE),
    "click_recall_1_near": (1, NEAR),
    "click_recall_10_near": (10, NEAR),
}


@dataclass(frozen=True, eq=False)
class PairClicks:
    """The click test of one pair of sections, and which places the training has not seen.

    Attributes
    ----------
    test : ClickTest
        Ranks of Q queries.
    unseen : ndarray of bool, shape (Q,)
        True where the fine-tuning has seen no pixel of the query's patch.
    """

    test: ClickTest
    unseen: Mask


Clicks = dict[str, PairClicks]
"""By name of the pair."""


def click_trial(
    encoder: str,
    features: Path,
    folder: Path,
    options: FinetuneConfig,
    study: StudyConfig,
) -> Job[ClickFigures]:
    """Run the click test of a trial on all its serial sections, as a job.

    Parameters
    ----------
    encoder : str
        What :func:`load_encoder` takes.
    features : Path
        Folder of feature files; complete ones are reused.
    folder : Path
        The trial's folder, for the ranks.
    options : FinetuneConfig
        Options of the trial's fine-tuning: patches, slides, and held-out blocks.
    study : StudyConfig
        Serial sections, context radii and options of the click test.

    Yields
    ------
    Event
        Progress of extraction, registration and test.

    Returns
    -------
    dict of int to dict of str to float
        By context radius and measure: over all pairs, for unseen places only, and pair
        by pair.

    Raises
    ------
    ConfigError
        If an option is wrong.
    RegistrationError
        If two sections do not correspond.
    """
    checked = click_options(study.clicks)
    paths = list(dict.fromkeys(p for s in study.serial for p in (s.first, s.second)))
    sets = yield from extract_study(encoder, paths, features, options)
    named = {str(path): one for path, one in zip(paths, sets, strict=True)}
    yield Progress("Finding held-out blocks", 0, None)
    seen = _SeenPlaces(options)
    found: ClickFigures = {}
    stored: dict[str, Any] = {}
    for radius in study.radii:
        around = average_all(named, radius)
        clicks: Clicks = {}
        for pair in study.serial:
            registration = yield from _registration(pair, study, options)
            first, second = around[str(pair.first)], around[str(pair.second)]
            yield Progress("Click test", len(clicks), len(study.serial), "pairs")
            test = click_test(first, second, registration, checked)
            unseen = seen.unseen(first, second)[test.rows]
            clicks[pair.name] = PairClicks(test, unseen)
        found[radius] = click_figures(clicks)
        stored[str(radius)] = {
            name: {**one.test.to_json(), "unseen": one.unseen.tolist()}
            for name, one in clicks.items()
        }
    write_json(folder / FILE, stored)
    return found


def click_options(options: Mapping[str, Any]) -> SerialConfig:
    """Check a study's options of the click test.

    Parameters
    ----------
    options : mapping
        Options as ``evaluate --serial`` has them.

    Returns
    -------
    SerialConfig
        The options.

    Raises
    ------
    ConfigError
        If one is wrong.
    """
    try:
        return SerialConfig.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{where}: {first['msg']}", "clicks") from None


def click_figures(clicks: Clicks) -> dict[str, float]:
    """Return the measures of a click test.

    Parameters
    ----------
    clicks : mapping of str to PairClicks
        By name of the pair.

    Returns
    -------
    dict of str to float
        Over all pairs; for unseen places, ending in `` (unseen)``, where there are any;
        and pair by pair, where there are several, ending in the pair in brackets.
    """
    everywhere = {name: np.ones(len(one.test), bool) for name, one in clicks.items()}
    unseen = {name: one.unseen for name, one in clicks.items()}
    found = _figures(clicks, everywhere, "")
    if any(mask.any() for mask in unseen.values()):
        found |= _figures(clicks, unseen, " (unseen)")
    if len(clicks) > 1:
        for name, one in clicks.items():
            found |= _figures({name: one}, everywhere, f" [{name}]")
    return found


def _figures(
    clicks: Clicks, masks: Mapping[str, Mask], ending: str
) -> dict[str, float]:
    counts = np.asarray([masks[name].sum() for name in clicks], np.float64)
    found = {}
    for figure, (k, within) in _RECALLS.items():
        hits = [one.test.hits(k, within)[masks[n]] for n, one in clicks.items()]
        found[figure + ending] = float(np.concatenate(hits).mean())
    ranks = [one.test.own[masks[name]] for name, one in clicks.items()]
    found[f"click_median_rank{ending}"] = float(np.median(np.concatenate(ranks)))
    if not ending:
        chances = [one.test.chance(1) for one in clicks.values()]
        found["click_chance_1"] = float(np.average(chances, weights=counts))
    found[f"click_queries{ending}"] = float(counts.sum())
    return found


def _registration(
    pair: SerialPair, study: StudyConfig, options: FinetuneConfig
) -> Job[Registration]:
    """Read the registration of a pair, or compute it once for the study."""
    assert study.out is not None
    file = study.out / "serial" / f"{pair.name}.npz"
    if file.exists():
        return read_registration(file)
    with (
        options.read.open(pair.first) as first,
        options.read.open(pair.second) as second,
    ):
        found = yield from register_sections(first, second, tissue=options.tissue)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_registration(file, found)
    yield Note(f"{pair.name}: registered, error {found.residual.describe()}")
    return found


class _SeenPlaces:
    """Which patches a fine-tuning has seen: all on its slides but the held-out blocks."""

    def __init__(self, options: FinetuneConfig) -> None:
        self._boxes: dict[str, NDArray[np.float64]] = {}
        with ExitStack() as stack:
            slides = [stack.enter_context(options.read.open(p)) for p in options.slides]
            if not slides:
                return
            mpp = common_mpp(slides, options.grid)
            tissue = [find_tissue(slide, options.tissue) for slide in slides]
            sources = [Source(*pair) for pair in zip(slides, tissue, strict=True)]
            # The same seed gives the blocks that the training held out.
            held_out = hold_out_blocks(sources, options, mpp)
            for slide, boxes in zip(slides, held_out.boxes, strict=True):
                self._boxes[slide.fingerprint] = boxes

    def unseen(self, first: FeatureSet, second: FeatureSet) -> Mask:
        """Return which patches of the first section were not seen, (N,).

        None are where the second section is in the training set: its patches, the
        candidates, were then seen.
        """
        if second.grid.slide["fingerprint"] in self._boxes:
            return np.zeros(len(first), bool)
        boxes = self._boxes.get(first.grid.slide["fingerprint"])
        if boxes is None:
            return np.ones(len(first), bool)
        return inside_boxes(first.grid, boxes)


def inside_boxes(grid: PatchGrid, boxes: NDArray[np.float64]) -> Mask:
    """Return which patches lie wholly inside one of some boxes.

    Parameters
    ----------
    grid : PatchGrid
        N patches.
    boxes : ndarray of float64, shape (K, 4)
        x0, y0, x1, y1 in level-0 pixels.

    Returns
    -------
    ndarray of bool, shape (N,)
        True for patches inside.
    """
    left, top, right, bottom = boxes.T
    start, stop = grid.xy[:, None], grid.xy[:, None] + grid.patch_size_level0
    inside = (start[..., 0] >= left) & (stop[..., 0] <= right)  # (N, K)
    inside &= (start[..., 1] >= top) & (stop[..., 1] <= bottom)
    return np.asarray(inside.any(axis=1))


def read_clicks(folder: Path, radius: int) -> Clicks | None:
    """Read the click test of a trial.

    Parameters
    ----------
    folder : Path
        The trial's folder.
    radius : int
        Context radius.

    Returns
    -------
    mapping of str to PairClicks or None
        By name of the pair; None where the trial has none at that radius.

    Raises
    ------
    FeatureError
        If the file is incomplete.
    """
    file = folder / FILE
    if not file.exists():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    if str(radius) not in content:
        return None
    return {
        name: PairClicks(ClickTest.from_json(one), np.asarray(one["unseen"], bool))
        for name, one in content[str(radius)].items()
    }
