"""Tables of a click test: recalls with intervals over squares of tissue, and differences.

Queries close to each other see the same tissue, so that squares of tissue, not queries,
are the independent units: intervals are those of
:func:`~napari_mcm.core.evaluation.squares.mean_over_squares`, as in a study. A difference
of two encoders takes the difference of their hits, query by query. Where all queries hit,
or none, the interval is the exact one (Clopper-Pearson) for as many trials as there are
squares.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.evaluation.intervals import widen_at_edge
from napari_mcm.core.evaluation.result import plain
from napari_mcm.core.evaluation.serial import NEAR, WIDE, ClickTest
from napari_mcm.core.evaluation.squares import mean_over_squares, squares_of
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.registration import Registration
from napari_mcm.core.runtime.files import write_text

RECALLS = {
    "recall@1 within 2": (1, WIDE),
    "recall@10 within 2": (10, WIDE),
    "recall@1 within 0.75": (1, NEAR),
    "recall@10 within 0.75": (10, NEAR),
}
"""Measures: number of hits that are looked at, and distance in patch widths."""

MEDIAN = "median rank"


@dataclass(frozen=True)
class ClickRow:
    """One measure of one encoder at one radius.

    Attributes
    ----------
    encoder, context, measure : str
        Name of the encoder; what its features cover; name of the measure.
    value, low, high : float
        The measure and its 95 % interval.
    chance : float
        What a random order reaches.
    difference, difference_low, difference_high : float or None
        To the first encoder over the same neighbourhood; for the first encoder itself,
        to its single patches. None for what others are compared with.
    """

    encoder: str
    context: str
    measure: str
    value: float
    low: float
    high: float
    chance: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


@dataclass(frozen=True, eq=False)
class SerialEvaluation:
    """The click test of several encoders on two serial sections.

    Attributes
    ----------
    registration : Registration
        Map from the first section to the second.
    tests : mapping of (str, NeighbourhoodConfig) to ClickTest
        By encoder and neighbourhood; the same queries in the same order.
    patch_um : float
        Side of a patch in microns.
    rows : tuple of ClickRow
        By encoder, neighbourhood and measure.
    squares : int
        Squares of tissue over which intervals are taken.
    seconds : float
        Wall time.
    """

    registration: Registration
    tests: Mapping[tuple[str, NeighbourhoodConfig], ClickTest]
    patch_um: float
    rows: tuple[ClickRow, ...]
    squares: int
    seconds: float

    def sentences(self) -> list[str]:
        """Say in one line per encoder and neighbourhood how often a click finds its place.

        Returns
        -------
        list of str
            ``Lite0, 3 × 3 patches: a click finds its own place in the next section:
            .74 of 300, by chance .004``.
        """
        first, _ = next(iter(RECALLS.items()))
        return [
            f"{row.encoder}, {row.context}: a click finds its own place in the next "
            f"section: {_short(row.value)} of {self.queries}, by chance "
            f"{_short(row.chance, 3)}"
            for row in self.rows
            if row.measure == first
        ]

    @property
    def queries(self) -> int:
        """The number of queries.

        Returns
        -------
        int
        """
        return len(next(iter(self.tests.values())))


def compare_clicks(
    tests: Mapping[tuple[str, NeighbourhoodConfig], ClickTest],
    block_um: float = 1000.0,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[tuple[ClickRow, ...], int]:
    """Compare encoders, with intervals of values and of paired differences.

    Parameters
    ----------
    tests : mapping of (str, NeighbourhoodConfig) to ClickTest
        By encoder and neighbourhood, on the same queries; the first encoder, and the
        smallest radius, are what others are compared with.
    block_um : float, optional
        Side in microns of the squares of tissue.
    resamples, seed : int, optional
        Resamples of squares, and their random seed.

    Returns
    -------
    tuple of tuple of ClickRow and int
        The rows, and the number of squares.
    """
    one = next(iter(tests.values()))
    slides = np.zeros(len(one), np.int64)
    blocks, squares = squares_of(slides, one.centres_um, block_um)

    def over_squares(values: NDArray[np.float64]) -> tuple[float, float, float]:
        return mean_over_squares(
            values, slides, one.centres_um, block_um, resamples, seed
        )

    rows = []
    for (encoder, context), test in tests.items():
        reference = _reference(tests, encoder, context)
        other = tests[reference] if reference else None
        covers = context.describe() + (" patches" if context.radius else "")
        for name, (k, within) in RECALLS.items():
            hits = test.hits(k, within).astype(float)
            value, *ends = over_squares(hits)
            low, high = np.clip(
                widen_at_edge(value, (ends[0], ends[1]), len(squares)), 0, 1
            ).tolist()
            difference: tuple[float, ...] = ()
            if other is not None:
                difference = over_squares(hits - other.hits(k, within))
            chance = test.chance(k, within)
            rows.append(
                ClickRow(encoder, covers, name, value, low, high, chance, *difference)
            )
        low, high = median_interval(test.own, blocks, resamples, seed)
        # A random order puts one patch in the middle on average.
        chance = (test.candidates + 1) / 2
        rows.append(
            ClickRow(encoder, covers, MEDIAN, test.median_rank, low, high, chance)
        )
    return tuple(rows), len(squares)


def _reference(
    tests: Mapping[tuple[str, NeighbourhoodConfig], ClickTest],
    encoder: str,
    context: NeighbourhoodConfig,
) -> tuple[str, NeighbourhoodConfig] | None:
    first, least = next(iter(tests))
    wanted = (first, least if encoder == first else context)
    return None if wanted == (encoder, context) else wanted


def median_interval(
    ranks: NDArray[np.int64], blocks: NDArray[np.int64], resamples: int, seed: int
) -> tuple[float, float]:
    """Return the 95 % interval of a median, from resamples of squares.

    Parameters
    ----------
    ranks : ndarray of int64, shape (Q,)
        One rank per query.
    blocks : ndarray of int64, shape (Q,)
        Square of each query, counted from 0.
    resamples, seed : int
        Number of resamples, and random seed.

    Returns
    -------
    tuple of float
        Lower and upper end.
    """
    m = int(blocks.max()) + 1
    rng = np.random.default_rng((seed, 59))
    drawn = rng.multinomial(m, np.full(m, 1 / m), size=resamples)  # (B, m)
    order = np.argsort(ranks, kind="stable")
    # How often each query counts, in the order of ranks: (B, Q).
    below = drawn[:, blocks[order]].cumsum(axis=1)
    middle = (below * 2 >= below[:, -1:]).argmax(axis=1)
    low, high = np.percentile(ranks[order][middle], (2.5, 97.5))
    return float(low), float(high)


def describe_serial(result: SerialEvaluation) -> dict[str, Any]:
    """Return a result for JSON, with the ranks of every query.

    Parameters
    ----------
    result : SerialEvaluation
        The result.

    Returns
    -------
    dict of str to Any
        May hold NaN; see :func:`~napari_mcm.core.evaluation.result.plain`.
    """
    return {
        "registration": result.registration.describe(),
        "queries": result.queries,
        "patch_um": result.patch_um,
        "squares": result.squares,
        "seconds": result.seconds,
        "sentences": result.sentences(),
        "rows": [asdict(row) for row in result.rows],
        "tests": [
            {
                "encoder": encoder,
                "neighbourhood": context.model_dump(),
                **test.to_json(),
            }
            for (encoder, context), test in result.tests.items()
        ],
    }


def table_cells(result: SerialEvaluation) -> list[list[str]]:
    """Return the result as a table: one line per encoder and neighbourhood.

    Parameters
    ----------
    result : SerialEvaluation
        The result.

    Returns
    -------
    list of list of str
        The first line is the header, the last one chance.
    """
    names = [*RECALLS, MEDIAN]
    lead = next(iter(RECALLS))
    cells = [["encoder", "features", *names, f"{lead}: difference"]]
    by_test: dict[tuple[str, str], dict[str, ClickRow]] = {}
    for row in result.rows:
        by_test.setdefault((row.encoder, row.context), {})[row.measure] = row
    for (encoder, context), found in by_test.items():
        line = [_value(found[name]) for name in names]
        cells.append([encoder, context, *line, _difference(found[lead])])
    chances = [_short(found[name].chance, 3) for name in RECALLS]
    cells.append(["chance", "", *chances, f"{found[MEDIAN].chance:.0f}", ""])
    return cells


def facts(result: SerialEvaluation) -> list[tuple[str, str]]:
    """Return what a table needs beside it, as names and texts.

    Parameters
    ----------
    result : SerialEvaluation
        The result.

    Returns
    -------
    list of tuple of str
        Sections, registration, queries, intervals.
    """
    test = next(iter(result.tests.values()))
    registration = result.registration
    mirrored = ", mirrored" if registration.mirrored else ""
    return [
        (
            "sections",
            f"{registration.first['name']} asked in {registration.second['name']}",
        ),
        (
            "registration",
            f"turned by {registration.angle_deg:.1f}°{mirrored}; error "
            f"{registration.residual.describe()}",
        ),
        (
            "queries",
            f"{len(test)} patches of {result.patch_um:g} µm among {test.candidates}; "
            f"{test.left_out} left out, their place has no tissue",
        ),
        (
            "intervals",
            f"95 %, over {result.squares} squares of tissue; they do not cover "
            "differences between slides and patients",
        ),
    ]


def write_serial(out: Path, result: SerialEvaluation) -> list[Path]:
    """Write ``serial.json``, ``serial.csv`` and ``serial.md`` into a folder.

    Parameters
    ----------
    out : Path
        The folder.
    result : SerialEvaluation
        The result.

    Returns
    -------
    list of Path
        The files.
    """
    paths = [out / f"serial.{ending}" for ending in ("json", "csv", "md")]
    content = json.dumps(plain(describe_serial(result)), ensure_ascii=False)
    write_text(paths[0], content + "\n")
    write_text(paths[1], _as_csv(result.rows))
    write_text(paths[2], _as_markdown(result))
    return paths


def _as_csv(rows: Sequence[ClickRow]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow(plain(asdict(row)))
    return text.getvalue()


def _as_markdown(result: SerialEvaluation) -> str:
    head, *lines = table_cells(result)
    parts = [_line(head), _line(["---"] * len(head)), *map(_line, lines), ""]
    parts += [f"- {name}: {text}" for name, text in facts(result)]
    return "\n".join(["# The click test", "", *parts, "", *result.sentences(), ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(row: ClickRow) -> str:
    if row.measure == MEDIAN:
        return f"{row.value:.0f} [{row.low:.0f}, {row.high:.0f}]"
    return f"{_short(row.value)} [{_short(row.low)}, {_short(row.high)}]"


def _difference(row: ClickRow) -> str:
    if row.difference is None:
        return ""
    assert row.difference_low is not None and row.difference_high is not None
    ends = f"[{row.difference_low:+.2f}, {row.difference_high:+.2f}]"
    return f"{row.difference:+.2f} {ends}"


def _short(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}"
