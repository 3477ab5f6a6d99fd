"""Figures of the studies of context, from their folders, finished or not.

A figure of the click test is taken query by query, with a bootstrap over squares of tissue
and a t interval over seeds; any other with a t interval over folds. Arms are compared on
the folds and seeds that both have finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_mcm.core.evaluation.serial import NEAR, WIDE
from napari_mcm.core.studies.study_clicks import Trainings, compare_clicks
from napari_mcm.core.studies.study_config import StudyConfig, make_folds, make_trials
from napari_mcm.core.studies.study_differences import (
    Row,
    by_trial,
    compare,
    rows_of,
    t_interval,
)
from napari_mcm.core.studies.study_serial import Clicks, PairClicks, read_clicks

Interval = tuple[float, float]
NO_INTERVAL = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Value:
    """A figure of an arm, or a difference of two, with its intervals.

    `interval` is over places in the click test, over patients for slide classifiers, else
    over folds. `seeds` is a second one over seeds, where there are several. `done` of
    `planned` trials are in it.
    """

    mean: float
    interval: Interval
    done: int
    planned: int
    seeds: Interval = NO_INTERVAL
    above: int | None = None

    @property
    def low(self) -> float:
        """The lower of the lower ends; NaN without any interval."""
        return float(np.fmin(self.interval[0], self.seeds[0]))

    @property
    def high(self) -> float:
        """The higher of the upper ends."""
        return float(np.fmax(self.interval[1], self.seeds[1]))

    @property
    def complete(self) -> bool:
        """Whether all planned trials are in it."""
        return self.done >= self.planned


@dataclass(frozen=True)
class Measure:
    """A figure of a study: its name in a trial's summary, or how clicks are counted."""

    title: str
    figure: str = ""
    clicks: tuple[int, float] | None = None
    places: Literal["all", "trained on", "held out"] = "all"
    pair: str | None = None


RECALL_1 = Measure("recall@1 within 2", "click_recall_1", (1, WIDE))
RECALL_1_NEAR = Measure("recall@1 within .75", "click_recall_1_near", (1, NEAR))
RECALL_10 = Measure("recall@10 within 2", "click_recall_10", (10, WIDE))
FEW_SHOT = Measure("few-shot AUROC", "few_shot_auroc")
SIMILARITY = Measure("similarity AUROC", "similarity_auroc")


@dataclass(frozen=True, eq=False)
class Study:
    """A study's folder: its options, and the figures of its finished trials."""

    folder: Path
    config: StudyConfig
    rows: tuple[Row, ...]
    summaries: tuple[Mapping[str, Any], ...]
    _clicks: dict[tuple[str, int], Trainings] = field(default_factory=dict)

    @property
    def planned(self) -> dict[str, int]:
        """Number of trials of each arm."""
        trials = make_trials(self.config, make_folds(self.config))
        return {a: sum(t.arm == a for t in trials) for a in self.config.arms}

    @property
    def finished(self) -> dict[str, int]:
        """Number of finished trials of each arm."""
        found = [summary["arm"] for summary in self.summaries]
        return {arm: found.count(arm) for arm in self.config.arms}

    def value(self, measure: Measure, arm: str, radius: int) -> Value | None:
        """Give a figure of an arm, over its finished trials."""
        if measure.clicks:
            clicks = self._trainings(arm, radius, measure)
            missed = {key: _find_nothing(found) for key, found in clicks.items()}
            # Recall is the gain over an encoder that finds no place.
            return self._click_value(measure, arm, clicks, missed)
        values = by_trial(self.rows, arm, measure.figure, radius)
        if not values:
            return None
        folds: dict[str, list[float]] = {}
        for (fold, _), value in values.items():
            folds.setdefault(fold, []).append(value)
        means = [float(np.mean(found)) for found in folds.values()]
        interval = t_interval(means if len(means) > 1 else list(values.values()))
        done = len(values)
        return Value(float(np.mean(means)), interval, done, self.planned[arm])

    def difference(
        self,
        measure: Measure,
        arm: str,
        radius: int,
        control: str,
        control_radius: int | None = None,
    ) -> Value | None:
        """Compare an arm with another, or with itself at another radius."""
        if not {arm, control} <= set(self.config.arms):
            return None
        other = radius if control_radius is None else control_radius
        if measure.clicks:
            ours = self._trainings(arm, radius, measure)
            theirs = self._trainings(control, other, measure)
            if self._trained(control):
                ours = {key: ours[key] for key in ours.keys() & theirs.keys()}
            return self._click_value(measure, arm, ours, theirs)
        rows = list(self.rows)
        if self._trained(control):
            common = by_trial(rows, control, measure.figure, other)
            rows = [
                row for row in rows if row.arm != arm or (row.fold, row.seed) in common
            ]
        found = compare(rows, arm, control, measure.figure, radius, other)
        if found is None:
            return None
        ends = found.low, found.high
        planned = self.planned[arm]
        return Value(found.mean, ends, found.pairs, planned, above=found.above)

    def mean(self, figure: str, arm: str, radius: int = 0) -> float | None:
        """Give the mean of a property over finished trials, such as seconds."""
        values = list(by_trial(self.rows, arm, figure, radius).values())
        return float(np.mean(values)) if values else None

    def _trained(self, arm: str) -> bool:
        return self.config.arms[arm].encoder is None

    def _click_value(
        self, measure: Measure, arm: str, ours: Trainings, theirs: Trainings
    ) -> Value | None:
        assert measure.clicks is not None
        k, within = measure.clicks
        found = compare_clicks(ours, theirs, k, within, measure.places != "all")
        if found is None:
            return None
        # An encoder that is not trained has one trial: no interval over seeds.
        return Value(
            found.mean, found.places, found.count, self.planned[arm], found.trainings
        )

    def _trainings(self, arm: str, radius: int, measure: Measure) -> Trainings:
        """Give the clicks of all finished trials, with what a measure counts of them."""
        known = self._clicks
        if (arm, radius) not in known:
            known[arm, radius] = self._read(arm, radius)
        return {
            key: {
                name: replace(one, unseen=~one.unseen)
                if measure.places == "trained on"
                else one
                for name, one in clicks.items()
                if measure.pair in (None, name)
            }
            for key, clicks in known[arm, radius].items()
        }

    def _read(self, arm: str, radius: int) -> Trainings:
        found = {}
        for summary in self.summaries:
            fold, seed = summary["fold"], summary["seed"]
            folder = self.folder / "cells" / fold / f"seed-{seed}" / arm
            if summary["arm"] == arm:
                clicks = read_clicks(folder, radius)
                if clicks:
                    found[fold, seed] = clicks
        return found


def _find_nothing(clicks: Clicks) -> Clicks:
    """Give the clicks of an encoder whose places come last, for all queries."""
    found = {}
    for name, one in clicks.items():
        last = np.full(len(one.test), np.iinfo(np.int64).max)
        found[name] = PairClicks(replace(one.test, wide=last, near=last), one.unseen)
    return found


def read_study_folder(folder: Path) -> Study | None:
    """Read a study's folder; None where no trial of its arms is finished."""
    file = folder / "study.json"
    if not file.exists():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    # A folder may have been moved since.
    config = StudyConfig.model_validate(content | {"out": str(folder)})
    summaries = []
    for path in sorted(folder.glob("cells/*/*/*/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        if summary["arm"] in config.arms:
            summaries.append(summary)
    rows = tuple(row for summary in summaries for row in rows_of(summary))
    return Study(folder, config, rows, tuple(summaries)) if rows else None
