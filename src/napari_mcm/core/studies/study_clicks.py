"""Paired comparison of a study's arms in the click test, query by query.

With hit h = 1 where a place is among the first k patches, the difference of an arm a to its
control c is taken query by query, and averaged over the trainings j (seeds, and folds)
first::

    d_q = mean over j of ( h_q(a, j) - h_q(c, j) ),   difference = mean over q of d_q

Its interval is a bootstrap over squares of tissue, within each pair of sections; a second
one is Student's over the trainings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.evaluation.serial import NEAR, WIDE
from napari_mcm.core.evaluation.squares import mean_over_squares
from napari_mcm.core.studies.study_config import StudyConfig
from napari_mcm.core.studies.study_differences import t_interval
from napari_mcm.core.studies.study_serial import FILE, Clicks, read_clicks


@dataclass(frozen=True)
class ClickDifference:
    """Paired difference of two arms in the click test.

    Attributes
    ----------
    mean : float
        Mean over queries and trainings.
    places : tuple of float
        95 % bootstrap interval over squares of tissue.
    trainings : tuple of float
        95 % t interval over trainings; NaN for fewer than two.
    queries, count : int
        Number of queries and of trainings.
    """

    mean: float
    places: tuple[float, float]
    trainings: tuple[float, float]
    queries: int
    count: int


Trainings = Mapping[tuple[str, int], Clicks]
"""Clicks of an arm, by fold and seed."""


def compare_clicks(
    ours: Trainings,
    theirs: Trainings,
    k: int = 1,
    within: float = WIDE,
    unseen: bool = False,
) -> ClickDifference | None:
    """Compare two arms query by query, over the trainings that both have.

    Parameters
    ----------
    ours, theirs : mapping of tuple to mapping of str to PairClicks
        Clicks by fold and seed. A control with one seed is paired with all seeds.
    k : int, optional
        Recall among the first k patches.
    within : {2.0, 0.75}, optional
        Distance in patch widths that counts as the place.
    unseen : bool, optional
        Only queries whose patch our arm has not seen in training.

    Returns
    -------
    ClickDifference or None
        None where there is no pair, or no query.
    """
    fixed = {fold: clicks for (fold, _), clicks in theirs.items()}
    seeded = len(theirs) > len(fixed)
    # Gains of each training by query, which pair and row name in all of them.
    total: dict[tuple[str, int], list[float]] = {}
    places: dict[tuple[str, int], NDArray[np.float64]] = {}
    means = []
    for (fold, seed), own in ours.items():
        other = theirs.get((fold, seed)) if seeded else fixed.get(fold)
        gains = _gains(own, other or {}, k, within, unseen)
        if not gains:
            continue
        means.append(float(np.mean([gain for gain, _ in gains.values()])))
        for query, (gain, place) in gains.items():
            total.setdefault(query, []).append(gain)
            places[query] = place
    if not means:
        return None
    mean = float(np.mean(means))
    values = np.asarray([np.mean(found) for found in total.values()])
    pairs = [query[0] for query in total]
    interval = _over_places(values, pairs, np.asarray([places[q] for q in total]))
    return ClickDifference(mean, interval, t_interval(means), len(values), len(means))


def _gains(
    own: Clicks, other: Clicks, k: int, within: float, unseen: bool
) -> dict[tuple[str, int], tuple[float, NDArray[np.float64]]]:
    """Return the difference and the place of each query that both were asked."""
    found = {}
    for name in sorted(own.keys() & other.keys()):
        ours, theirs = own[name].test, other[name].test
        wanted = np.isin(ours.rows, theirs.rows)
        if unseen:
            wanted &= own[name].unseen
        control = dict(zip(theirs.rows.tolist(), theirs.hits(k, within), strict=True))
        hits = ours.hits(k, within)
        for place in np.flatnonzero(wanted):
            row = int(ours.rows[place])
            gain = float(hits[place]) - float(control[row])
            found[name, row] = gain, ours.centres_um[place]
    return found


def _over_places(
    values: NDArray[np.float64], pairs: Sequence[str], places_um: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the interval of a mean over squares of tissue."""
    _, slides = np.unique(pairs, return_inverse=True)
    _, low, high = mean_over_squares(values, slides.astype(np.int64), places_um)
    return low, high


def click_section(config: StudyConfig) -> list[str]:
    """Return the lines of ``study.md`` that compare arms in the click test.

    Parameters
    ----------
    config : StudyConfig
        The study, with its directory.

    Returns
    -------
    list of str
        Markdown; empty where nothing is to be compared yet.
    """
    assert config.out is not None
    columns = {
        "recall@1 within 2": (1, WIDE, False),
        "recall@10 within 2": (10, WIDE, False),
        "recall@1 within .75": (1, NEAR, False),
        "recall@1 within 2, unseen": (1, WIDE, True),
    }
    body = []
    for radius in config.radii:
        clicks = {arm: _trainings(config, arm, radius) for arm in config.arms}
        for arm, controls in config.controls.items():
            for control in controls:
                found = [
                    compare_clicks(clicks[arm], clicks[control], *how)
                    for how in columns.values()
                ]
                if any(found):
                    cells = [_cell(one) for one in found]
                    body.append([f"{arm} − {control}", str(radius), *cells])
    if not body:
        return []
    header = ["arm − control", "radius", *columns]
    lines = [header, ["---"] * len(header), *body]
    return [
        "",
        "## Click test, query by query",
        "",
        "Paired differences in recall. First interval: 95 % bootstrap over squares of "
        "1 mm within each pair of sections, after the mean over trainings. Second: 95 % "
        "t interval over trainings (seeds and folds).",
        "",
        *(f"| {' | '.join(line)} |" for line in lines),
    ]


def _cell(found: ClickDifference | None) -> str:
    if found is None:
        return ""
    low, high = found.places
    text = f"{found.mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    if found.count > 1:
        low, high = found.trainings
        text += f" [{low:+.3f}, {high:+.3f}]"
    return f"{text}, {found.queries} places"


def _trainings(config: StudyConfig, arm: str, radius: int) -> Trainings:
    """Read the clicks of all finished trials of an arm."""
    assert config.out is not None
    found = {}
    for file in sorted(config.out.glob(f"cells/*/seed-*/{arm}/{FILE}")):
        clicks = read_clicks(file.parent, radius)
        if clicks is not None:
            seed = file.parent.parent.name.removeprefix("seed-")
            found[file.parents[2].name, int(seed)] = clicks
    return found
