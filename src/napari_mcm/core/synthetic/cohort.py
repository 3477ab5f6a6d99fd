"""The generated cohort as a job: slides, annotations and a table of labels."""

from __future__ import annotations

import csv
import io
import os
import queue
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.runtime.files import write_text
from napari_mcm.core.runtime.geojson import write_features
from napari_mcm.core.runtime.jobs import Job, Meter
from napari_mcm.core.synthetic.cells import Palette, mix_palette
from napari_mcm.core.synthetic.chart import Chart
from napari_mcm.core.synthetic.field_effect import spread_from_tumour
from napari_mcm.core.synthetic.layout import Layout, plan_slide
from napari_mcm.core.synthetic.outlines import outline_regions
from napari_mcm.core.synthetic.pyramid import write_pyramid
from napari_mcm.core.synthetic.render import (
    BLOCK,
    Scene,
    Stroma,
    draw_block,
    lay_stroma,
    set_scene,
)
from napari_mcm.core.synthetic.serial import (
    SectionMap,
    cut_section,
    draw_section_map,
    write_truth,
)
from napari_mcm.core.synthetic.variation import Variation, draw_variation

TUMOUR_SHARES = (0.42, 0.14, 0.28, 0.10, 0.20)
"""Tumour as a fraction of the tissue on successive tumour slides."""


class SampleConfig(BaseModel):
    """The cohort to generate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="Number of slides; two belong to one patient",
    )
    size: int = Field(
        default=4000, ge=512, le=20_000, description="Side of a slide in level-0 pixels"
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="Seed; the same seed gives the same pixels",
    )
    mpp: float = Field(
        default=0.5, ge=0.2, le=1.0, description="Resolution of level 0 in µm per pixel"
    )
    tumour_share: float | None = Field(
        default=None,
        gt=0,
        le=0.6,
        description="Tumour as a fraction of the tissue, on slides with tumour; by "
        "default from 0.1 to 0.42 in turn",
    )
    serial: bool = Field(
        default=False,
        description="Draw the two slides of a patient as serial sections of one block, "
        "and write where the points of the first lie in the second",
    )
    varied: bool = Field(
        default=False,
        description="Let cells, chromatin, eosin and collagen vary from place to place in "
        "a block, alike in both of its sections; without, stroma is the same everywhere",
    )
    field_effect: bool = Field(
        default=False,
        description="Let the eosin of the tissue around a tumour ripple faintly; without, "
        "normal-looking patches hold no sign of a tumour nearby",
    )
    field_extent: float = Field(
        default=250.0,
        gt=0,
        le=5000,
        description="Distance from the tumour in µm at which the field effect ends",
    )
    field_strength: float = Field(
        default=0.05,
        gt=0,
        le=0.5,
        description="Root mean square of the field effect's ripple, relative to the eosin",
    )
    workers: int = Field(
        default_factory=lambda: min(8, os.cpu_count() or 1),
        ge=1,
        le=64,
        description="Slides drawn at a time; the result does not depend on it",
    )

    def cut_from(self, index: int) -> bool:
        """Return whether a slide is the second section of the block of the one before.

        Parameters
        ----------
        index : int
            Index of the slide, from 0.

        Returns
        -------
        bool
            True for every second slide of a cohort of serial sections.
        """
        return self.serial and index % 2 == 1

    def marker(self) -> str:
        """Return the options that the pixels of a slide depend on, as JSON.

        Returns
        -------
        str
            Options that are off are left out, as earlier versions did not have them.
        """
        left_out = {"slides", "workers"}
        left_out |= {name for name in ("serial", "varied") if not getattr(self, name)}
        if not self.field_effect:
            left_out |= {"field_effect", "field_extent", "field_strength"}
        return self.model_dump_json(exclude=left_out)


@dataclass(frozen=True)
class Cohort:
    """The files of a generated cohort.

    Attributes
    ----------
    slides : tuple of Path
        The slides, in order; each has a ``.geojson`` of the same name beside it.
    cohort : Path
        The table: ``slide_id,label,patient_id,path``.
    truths : tuple of Path
        Of serial sections, one file per pair: where points of the first lie in the
        second.
    """

    slides: tuple[Path, ...]
    cohort: Path
    truths: tuple[Path, ...] = ()


def generate_cohort(out: Path, config: SampleConfig | None = None) -> Job[Cohort]:
    """Generate slides with a known ground truth, as a job.

    Slides resemble sections of breast stained with haematoxylin and eosin. Every second
    patient has an invasive tumour on both slides (label ``tumour``), the others have
    none (``normal``); tumours take from a tenth to two fifths of the tissue.

    Two classes of region differ in their surroundings only. ``Tumour`` and ``Ductal
    hyperplasia`` are sheets of the same nuclei, equally dense, in the same cytoplasm,
    with the same septa and lumens. But a duct is a round island about 370 µm across,
    isolated in stroma, and the tumour consists of broad connected sheets: a patch of
    112 µm inside either has the same appearance, a window of 448 µm around it does not.
    Slides of both labels have ducts, so that cells alone do not reveal a tumour.

    With ``serial``, the two slides of a patient are serial sections of one block: the
    second one shows the same structures, turned, shifted and stretched by a map that is
    written beside them. With ``varied``, cells and collagen differ from place to place, as
    they do in real tissue, and the sections of a block have that in common. With
    ``field_effect``, the tissue around a tumour carries a faint sign of it; without, the
    cohort is a negative control for training with context.

    Started again in the same folder with the same options, it keeps the slides that are
    finished; with other options, it draws all slides again.

    Parameters
    ----------
    out : Path
        Folder for the files; created if necessary.
    config : SampleConfig, optional
        The cohort to generate.

    Returns
    -------
    Cohort
        The files.

    Yields
    ------
    Progress
        Squares of slides drawn, several times per second.

    Raises
    ------
    McmError
        If a file cannot be written.
    """
    config = config or SampleConfig()
    out = Path(out)
    _keep_or_begin(out, config)
    done: queue.SimpleQueue[None] = queue.SimpleQueue()
    stop = threading.Event()
    squares = config.slides * (-(-config.size // BLOCK)) ** 2
    meter = Meter("Generating slides", squares, "squares")
    yield meter.progress()
    palette = mix_palette(config.mpp, np.random.default_rng([config.seed, 0]))
    pool = ThreadPoolExecutor(config.workers, thread_name_prefix="samples")
    try:
        jobs = [
            pool.submit(_make_slide, out, index, config, palette, done, stop)
            for index in range(config.slides)
        ]
        while not all(job.done() for job in jobs) or not done.empty():
            _raise_first(jobs)
            yield meter.advance(_drain(done))
        slides = tuple(job.result() for job in jobs)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    table = out / "cohort.csv"
    write_text(table, _table(slides))
    truths = tuple(
        _truth_file(out, index)
        for index in range(len(slides))
        if config.cut_from(index)
    )
    return Cohort(slides, table, truths)


def _files(out: Path, index: int) -> tuple[Path, Path]:
    """Return the paths of a slide and its regions, which are written last."""
    return out / f"slide_{index:02d}.ome.tif", out / f"slide_{index:02d}.geojson"


def _truth_file(out: Path, index: int) -> Path:
    return out / f"slide_{index - 1:02d}_to_{index:02d}.json"


def _is_drawn(path: Path, regions: Path, size: int) -> bool:
    """Return whether a slide is finished, and intact."""
    if not regions.exists():
        return False
    try:
        with tifffile.TiffFile(path) as slide:
            # All levels, in whatever order they lie in the file.
            levels = [slide.pages.first, *(slide.pages.first.pages or ())]
            ends = [p.dataoffsets[-1] + p.databytecounts[-1] for p in levels]
            whole = max(ends) <= slide.filehandle.size
            return whole and slide.pages.first.shape == (size, size, 3)
    except (OSError, ValueError, IndexError, struct.error):
        # Missing, or truncated by a copy or a full disk.
        return False


def _keep_or_begin(out: Path, config: SampleConfig) -> None:
    """Keep slides drawn with these options; mark those of other options as unfinished."""
    marker = out / "sample.json"
    options = config.marker()
    if marker.exists() and marker.read_text(encoding="utf-8") == options:
        return
    # All of an earlier sample, because a later run may request more slides.
    for regions in out.glob("slide_*.geojson"):
        if regions.with_suffix(".ome.tif").exists():
            regions.unlink()
    write_text(marker, options)


def plan_sample(
    config: SampleConfig, index: int, check: Callable[[], None] = lambda: None
) -> Layout:
    """Plan one slide of a cohort: the ground truth that its pixels are drawn from.

    Parameters
    ----------
    config : SampleConfig
        The cohort.
    index : int
        Index of the slide, from 0.
    check : callable, optional
        Called regularly; an exception that it raises stops the planning.

    Returns
    -------
    Layout
        The plan.
    """
    if config.cut_from(index):
        return _cut(config, index, check)[0]
    # One random stream per slide: the order and number of threads do not matter.
    rng = np.random.default_rng([config.seed, 1, index])
    share = _tumour_share(index, rng, config.tumour_share)
    # Every third slide has a pen mark, independent of its label.
    marked = index % 3 == 1
    return plan_slide(Chart(config.size, config.mpp, rng, check), share, marked)


def _cut(
    config: SampleConfig, index: int, check: Callable[[], None]
) -> tuple[Layout, Stroma, Variation | None]:
    """Plan the second section of the block that the slide before is the first of."""
    block = plan_sample(config, index - 1, check)
    chart = Chart(
        config.size, config.mpp, np.random.default_rng([config.seed, 1, index]), check
    )
    section, variation = section_map(config, index), _vary(config, index, block)
    return cut_section(block, lay_stroma(block), section, chart, variation)


def _vary(config: SampleConfig, index: int, block: Layout) -> Variation | None:
    """Draw the variation of a slide's block, in its first section."""
    if not config.varied:
        return None
    # A stream of its own: the plan is the same with variation and without.
    first = index - 1 if config.cut_from(index) else index
    return draw_variation(block.chart, np.random.default_rng([config.seed, 4, first]))


def section_map(config: SampleConfig, index: int) -> SectionMap:
    """Return where points of the slide before lie in a slide, its second section.

    Parameters
    ----------
    config : SampleConfig
        A cohort of serial sections.
    index : int
        Index of the second section.

    Returns
    -------
    SectionMap
        The map, in µm.
    """
    rng = np.random.default_rng([config.seed, 3, index])
    return draw_section_map(config.size * config.mpp, rng)


def prepare_sample(
    config: SampleConfig,
    index: int,
    palette: Palette,
    check: Callable[[], None] = lambda: None,
) -> Scene:
    """Plan one slide of a cohort and place all that is drawn on it.

    Parameters
    ----------
    config : SampleConfig
        The cohort.
    index : int
        Index of the slide, from 0.
    palette : Palette
        Stamps and textures of the cohort.
    check : callable, optional
        Called regularly; an exception that it raises stops the planning.

    Returns
    -------
    Scene
        The slide, ready to be drawn.
    """
    stroma, turn = None, 0.0
    if config.cut_from(index):
        layout, stroma, variation = _cut(config, index, check)
        turn = section_map(config, index).turn
    else:
        layout = plan_sample(config, index, check)
        variation = _vary(config, index, layout)
    effect = None
    if config.field_effect:
        # A stream of its own: everything else is drawn as without the effect. All blocks
        # of a cohort are stretched in one direction.
        rng = np.random.default_rng([config.seed, 2])
        angle = float(rng.uniform(0, np.pi)) + turn
        effect = spread_from_tumour(
            layout, config.field_extent, config.field_strength, angle
        )
    return set_scene(layout, palette, stroma, effect, variation)


def _make_slide(
    out: Path,
    index: int,
    config: SampleConfig,
    palette: Palette,
    done: queue.SimpleQueue[None],
    stop: threading.Event,
) -> Path:
    """Plan, draw and write one slide; runs in a worker thread.

    Raises
    ------
    _Stopped
        If the job was closed.
    """

    def check() -> None:
        if stop.is_set():
            raise _Stopped

    check()
    path, regions = _files(out, index)
    if _is_drawn(path, regions, config.size):
        for _ in range((-(-config.size // BLOCK)) ** 2):
            done.put(None)
        return path
    scene = prepare_sample(config, index, palette, check)

    def draw(y: int, x: int) -> NDArray[np.uint8]:
        check()
        done.put(None)
        return draw_block(scene, y, x)

    write_pyramid(path, config.size, config.mpp, draw)
    if config.cut_from(index):
        truth, section = _truth_file(out, index), section_map(config, index)
        before = _files(out, index - 1)[0]
        write_truth(truth, before, path, section, config.size * config.mpp)
    outlines = outline_regions(scene.layout, f"{config.seed}/{index}")
    write_features(regions, outlines, one_per_line=False)
    return path


def _has_tumour(index: int) -> bool:
    return index // 2 % 2 == 0


def _tumour_share(
    index: int, rng: np.random.Generator, given: float | None = None
) -> float:
    if not _has_tumour(index):
        return 0.0
    turn = index // 4 * 2 + index % 2
    share = TUMOUR_SHARES[turn % len(TUMOUR_SHARES)] if given is None else given
    return share * float(rng.uniform(0.85, 1.15))


def _table(slides: tuple[Path, ...]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["slide_id", "label", "patient_id", "path"])
    for index, path in enumerate(slides):
        label = "tumour" if _has_tumour(index) else "normal"
        patient = f"patient_{index // 2:02d}"
        writer.writerow([f"slide_{index:02d}", label, patient, path.name])
    return text.getvalue()


def _drain(done: queue.SimpleQueue[None]) -> int:
    """Wait briefly for finished squares, then count them."""
    try:
        done.get(timeout=0.2)
    except queue.Empty:
        return 0
    count = 1
    while not done.empty():
        done.get()
        count += 1
    return count


def _raise_first(jobs: list[Future[Path]]) -> None:
    for job in jobs:
        if job.done():
            job.result()


class _Stopped(Exception):
    """The job was closed while a slide was being drawn."""
