"""Serial sections in the real window: registrations, their errors, and the click test.

Opens the slides, registers the pairs by the dock's own button, and asks patches of each
first section in the second one with the registration that the window saved: on features
that exist, averaged over no neighbours and over one ring of them. Regions that were drawn
on both sections are compared with those carried over. Prints a few lines per pair, and how
long the window stood still.

    scripts/with_display.sh .venv/bin/python benchmarks/sections.py SLIDE SLIDE ... \\
        --features FOLDER [--pairs 0,1 1,2] [--queries 512] [--pictures FOLDER] \\
        [--regions FOLDER]

``--regions`` is HER2ST's folder: ``C2_regions.geojson`` is of the slide ``her2st_C2``.

Registrations are saved beside the slides, as the dock does.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    # Read once, as napari is imported: what the user keeps is neither used nor changed.
    _settings = tempfile.TemporaryDirectory()
    os.environ["NAPARI_CONFIG"] = f"{_settings.name}/settings.yaml"
    os.environ["XDG_CONFIG_HOME"] = f"{_settings.name}/config"

import numpy as np
import shapely
from qtpy.QtCore import QTimer

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
from screenshot_driver import Studio, settle, wait  # noqa: E402

from napari_mcm.core.evaluation.config import SerialConfig
from napari_mcm.core.evaluation.serial import NEAR, ClickTest, click_test
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.registration import (
    Registration,
    read_registration,
    section_map,
)
from napari_mcm.core.registration.carry import carry_region
from napari_mcm.core.sections.files import read_objects
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import find_tissue
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.registration.controller import sections_of

_SECTION = re.compile(r"her2st_(C\d).*")
"""Names of HER2ST's slides."""


class StandingStill:
    """Measures how long the window takes to come back to its event loop."""

    def __init__(self) -> None:
        self._gaps: list[float] = []
        self._last = time.monotonic()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(10)

    def _tick(self) -> None:
        now = time.monotonic()
        self._gaps.append(1e3 * (now - self._last))
        self._last = now

    def describe(self) -> str:
        """Stop, and return median, 95th percentile and maximum in milliseconds."""
        self._timer.stop()
        median, high = np.percentile(self._gaps, (50, 95))
        return f"{median:.0f}, {high:.0f}, {max(self._gaps):.0f} ms"


def register(
    studio: Studio, dock: object, pair: tuple[int, int]
) -> Registration | None:
    """Press the button for two of the open slides; None if they are refused."""
    session = studio.session
    slides, sections = session.layers.slides(), sections_of(session)
    session.choose_slide(slides[pair[0]])
    sections.choose_other(slides[pair[1]])
    settle(0.5)
    still, began = StandingStill(), time.monotonic()
    dock.registration.register.click()  # type: ignore[attr-defined]
    wait(lambda: not session.jobs.status.busy)
    print(
        f"{slides[pair[0]].name} to {slides[pair[1]].name}: "
        f"{time.monotonic() - began:.0f} s, window still for {still.describe()}"
    )
    session.disk.wait()
    settle(0.5)
    known = sections.known
    if known is None or known.path is None:
        print(f"  {sections.refused}")
        return None
    # What the window saved, not what it holds.
    return read_registration(known.path)


def ask(found: Registration, features: Path, queries: int) -> list[ClickTest]:
    """Run the click test on the patch alone, and on 3 × 3 patches."""
    sets = [
        read_features(features / f"{one['name']}.features.zarr")
        for one in (found.first, found.second)
    ]
    tests = []
    for radius in (0, 1):
        around: list[FeatureSet] = [
            average_neighbourhood(one, NeighbourhoodConfig(radius=radius))
            for one in sets
        ]
        tests.append(click_test(*around, found, SerialConfig(queries=queries)))
    return tests


def compare_regions(found: Registration, slides: list[Slide], folder: Path) -> str:
    """Compare regions of the second section with those carried over from the first.

    Classes are compared at 4,000 random places of the tissue, where both name one.
    """
    from sklearn.metrics import cohen_kappa_score

    mapping = section_map(found, *slides)
    tissue = find_tissue(slides[1])
    drawn = [
        read_objects(folder / _SECTION.sub(r"\1_regions.geojson", one.name))
        for one in slides
    ]
    carried = [
        (moved.geometry, label)
        for shape, _, label in drawn[0]
        if (moved := carry_region(mapping, shape, tissue)).state == "placed"
    ]
    rows, columns = np.nonzero(tissue.mask)
    chosen = np.random.default_rng(0).choice(len(rows), 4000, replace=False)
    places = np.column_stack([columns[chosen], rows[chosen]]) + 0.5
    places = places * tissue.downsample
    told = []
    for regions in (
        carried,
        [(shape, label) for shape, _, label in drawn[0]],
        [(shape, label) for shape, _, label in drawn[1]],
    ):
        classes = np.full(len(places), "", object)
        for shape, label in regions:
            classes[shapely.contains_xy(shape, *places.T)] = label
        told.append(classes)
    lines = []
    for title, classes in (("carried", told[0]), ("not moved", told[1])):
        both = (classes != "") & (told[2] != "")
        agree = (classes == told[2])[both].mean()
        kappa = cohen_kappa_score(classes[both].tolist(), told[2][both].tolist())
        lines.append(
            f"{title}: {both.mean():.0%} named, agree {agree:.3f}, {kappa:.2f}"
        )
    return "; ".join(lines)


def show(found: Registration, tests: list[ClickTest]) -> None:
    """Print the errors, and a row of the click test for each context."""
    print(f"  on tissue: {found.residual.describe()}")
    print(f"  on edges: {found.edges.describe()}")
    for radius, test in enumerate(tests):
        print(
            f"  context {radius}: {len(test)} queries among {test.candidates}, "
            f"recall@1 {test.recall(1):.3f} (chance {test.chance(1):.3f}), within .75 "
            f"{test.recall(1, NEAR):.3f} ({test.chance(1, NEAR):.3f}), recall@10 "
            f"{test.recall(10):.3f} ({test.chance(10):.3f}), median rank "
            f"{test.median_rank:g}"
        )


def main() -> None:
    """Register the pairs, and test them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slides", type=Path, nargs="+")
    parser.add_argument("--features", type=Path, help="folder of feature files")
    parser.add_argument("--pairs", nargs="+", default=["0,1"], help="I,J ...")
    parser.add_argument("--regions", type=Path, help="folder of regions, as HER2ST's")
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--pictures", type=Path, default=Path("pictures"))
    options = parser.parse_args()
    studio = Studio(options.pictures, (1280, 800))
    for slide in options.slides:
        studio.open(slide)
    dock = studio.dock("Sections")
    for text in options.pairs:
        one, other = (int(number) for number in text.split(","))
        found = register(studio, dock, (one, other))
        if found is None:
            continue
        tests = (
            []
            if options.features is None
            else ask(found, options.features, options.queries)
        )
        show(found, tests)
        if options.regions is not None:
            layers = studio.session.layers.slides()
            slides = [slide_of(layers[number]) for number in (one, other)]
            print(f"  regions {compare_regions(found, slides, options.regions)}")
        dock.registration.link.click()
        settle(2)
        studio.take(f"{found.first['name']}-{found.second['name']}")
        dock.registration.link.click()


if __name__ == "__main__":
    main()
