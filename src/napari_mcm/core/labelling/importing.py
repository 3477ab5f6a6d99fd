"""Importing outlined regions of slides into a label file, as a job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.labelling.config import ImportLabelsConfig
from napari_mcm.core.labelling.feature_files import find_feature_files, read_any
from napari_mcm.core.labelling.files import read_labels, write_labels
from napari_mcm.core.labelling.label_set import LabelSet
from napari_mcm.core.labelling.pairing import find_label_files
from napari_mcm.core.labelling.regions import import_regions
from napari_mcm.core.runtime.jobs import Job, Meter, Note
from napari_mcm.core.runtime.threads import run_in_thread


@dataclass(frozen=True)
class ImportLabelsResult:
    """Labels that were imported.

    Attributes
    ----------
    labels : LabelSet
        All labels of the file.
    counts : mapping of str to int
        Number of patches that were labelled, by slide.
    file : Path
        The label file.
    """

    labels: LabelSet
    counts: dict[str, int]
    file: Path


def import_labels(config: ImportLabelsConfig) -> Job[ImportLabelsResult]:
    """Label the patches in outlined regions, as a job.

    Parameters
    ----------
    config : ImportLabelsConfig
        Regions, features and the label file.

    Yields
    ------
    Event
        Progress in slides; notes on slides without regions.

    Returns
    -------
    ImportLabelsResult

    Raises
    ------
    ConfigError
        If an option is missing, or files of regions do not fit the slides.
    GridError
        If a file of regions is damaged.
    FeatureError
        If features cannot be read.
    LabelError
        If the label file exists and is damaged.
    """
    if not config.regions or not config.features or config.out is None:
        raise ConfigError(
            "regions, --features and --out are needed",
            hint="See napari-mcm labels import --help",
        )
    labels = read_labels(config.out) if config.out.exists() else LabelSet()
    sets = yield from _read(config)
    files = find_label_files(config.regions, list(sets))
    counts: dict[str, int] = {}
    meter = Meter("Labelling patches", len(files), "slides")
    for slide, path in files.items():
        grid = sets[slide].grid
        labels, counts[slide] = yield from run_in_thread(
            meter.progress(),
            import_regions,
            labels,
            path,
            grid,
            config.author,
            config.covered,
        )
        labels = labels.with_slide_name(str(grid.slide.get("fingerprint")), slide)
        yield meter.advance()
        if not counts[slide]:
            yield Note(
                f"{slide}: no patch lies in a region of {path.name}; is it of this slide?",
                "warning",
            )
    for slide in sets:
        if slide not in files:
            yield Note(f"{slide} has no regions and is left out", "warning")
    yield from run_in_thread("Writing", write_labels, config.out, labels)
    return ImportLabelsResult(labels, counts, config.out)


def _read(config: ImportLabelsConfig) -> Job[dict[str, FeatureSet]]:
    files, _ = find_feature_files(config.features)
    sets: dict[str, FeatureSet] = {}
    meter = Meter("Reading features", len(files), "files")
    for found in files:
        features = yield from run_in_thread(
            meter.progress(), read_any, found.path, abandon=True
        )
        # Several files of a slide have its patches for several encoders: one is enough.
        sets.setdefault(str(features.grid.slide.get("name")), features)
        yield meter.advance()
    return sets
