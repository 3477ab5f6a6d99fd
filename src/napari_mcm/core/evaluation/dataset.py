"""The labelled patches that all encoders are compared on, and their features."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError, FeatureError
from napari_mcm.core.evaluation.config import EvaluateConfig
from napari_mcm.core.evaluation.probes import Labels, Matrix
from napari_mcm.core.evaluation.surroundings import (
    BORDER,
    near_other_class,
    neighbour_means,
)
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.format import SUFFIX, slide_of
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.overall import portion

Sets = Mapping[str, FeatureSet]
"""Features of one encoder, by slide."""


@dataclass(frozen=True, eq=False)
class LabelledPatches:
    """N labelled patches of several slides, with the features of each encoder.

    Attributes
    ----------
    labels : ndarray of int64, shape (N,)
        Index into `classes`.
    classes : tuple of str
        Names, in alphabetical order.
    groups : ndarray of int64, shape (N,)
        Index into `group_names`.
    group_names : tuple of str
        Slides or patients, whose patches are left out together.
    slides : ndarray of int64, shape (N,)
        Index into `slide_names`.
    slide_names : tuple of str
        Names of the slides.
    places_um : ndarray of float64, shape (N, 2)
        Centres (x, y) on their slide, in microns.
    features : mapping of str to ndarray of float32, shape (N, D)
        Features by encoder.
    surroundings : mapping of str to ndarray of float32, shape (N, D)
        By encoder, each patch's features averaged with those of its neighbours, up to
        eight.
    border : ndarray of bool, shape (N,)
        True where a patch of another class, or of none, lies within one patch width.
    """

    labels: Labels
    classes: tuple[str, ...]
    groups: Labels
    group_names: tuple[str, ...]
    slides: Labels
    slide_names: tuple[str, ...]
    places_um: NDArray[np.float64]
    features: Mapping[str, Matrix]
    surroundings: Mapping[str, Matrix]
    border: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> dict[str, int]:
        """Count the patches of each class.

        Returns
        -------
        dict of str to int
            Number by class.
        """
        found = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, found.tolist(), strict=True))


def gather(
    encoders: Mapping[str, Sets],
    labels: Mapping[str, Sequence[str]],
    classes: Sequence[str] = (),
    exclude: Sequence[str] = (),
    patients: Mapping[str, str] | None = None,
) -> LabelledPatches:
    """Select the labelled patches that every encoder has features of.

    Parameters
    ----------
    encoders : mapping of str to mapping of str to FeatureSet
        Features by encoder and slide, on the same grids.
    labels : mapping of str to sequence of str
        By slide, one class per patch; empty for none.
    classes, exclude : sequence of str, optional
        Classes to use (by default all), and to leave out.
    patients : mapping of str to str, optional
        Group of each slide; by default each slide is its own.

    Returns
    -------
    LabelledPatches
        The patches, slide by slide.

    Raises
    ------
    FeatureError
        If nothing is labelled, or encoders have different patches.
    ConfigError
        If a class to use does not occur, or a slide has no group.
    """
    check_grids(encoders)
    rows = {s: _rows(encoders, s, n, classes, exclude) for s, n in labels.items()}
    rows = {slide: found for slide, found in rows.items() if len(found)}
    named = sorted({n for names in labels.values() for n in names if n})
    for name in classes:
        if name not in named:
            raise ConfigError(
                f"no patch is of class {name}",
                "--classes",
                f"The classes are: {', '.join(named) or 'none'}",
            )
    if not rows:
        raise FeatureError(
            "no patch with features lies in a labelled region",
            hint="Are the labels of these slides, in level-0 pixels?",
        )
    return _assemble(encoders, labels, rows, patients)


def check_grids(encoders: Mapping[str, Sets]) -> None:
    """Check that all encoders have features of the same patches.

    Parameters
    ----------
    encoders : mapping of str to mapping of str to FeatureSet
        Features by encoder and slide.

    Raises
    ------
    FeatureError
        If they differ; the message names slide and encoder.
    """
    first, *others = encoders
    for name in others:
        for slide, one in encoders[first].items():
            other = encoders[name][slide]
            if other.grid.fingerprint != one.grid.fingerprint:
                raise FeatureError(
                    f"{slide}: {name} has other patches ({_describe(other.grid)}) than "
                    f"{first} ({_describe(one.grid)})",
                    hint="Extract with one --mpp and --patch-size for all encoders",
                )


def _describe(grid: PatchGrid) -> str:
    return f"{len(grid)} of {grid.patch_size} px at {grid.mpp:g} µm"


def _rows(
    encoders: Mapping[str, Sets],
    slide: str,
    names: Sequence[str],
    classes: Sequence[str],
    exclude: Sequence[str],
) -> NDArray[np.int64]:
    """Return the patches of a slide that are labelled and have features of all encoders."""
    wanted = [
        bool(name) and name not in exclude and (not classes or name in classes)
        for name in names
    ]
    keep = np.asarray(wanted, bool)
    for sets in encoders.values():
        # Patches of all encoders only: differences between encoders are paired.
        keep &= sets[slide].ok & np.isfinite(sets[slide].features).all(axis=1)
    return np.flatnonzero(keep)


def _assemble(
    encoders: Mapping[str, Sets],
    labels: Mapping[str, Sequence[str]],
    rows: Mapping[str, NDArray[np.int64]],
    patients: Mapping[str, str] | None,
) -> LabelledPatches:
    slide_names = tuple(rows)
    group_of = [_group(slide, patients) for slide in slide_names]
    group_names = tuple(dict.fromkeys(group_of))
    lengths = [len(found) for found in rows.values()]
    slides = np.repeat(np.arange(len(rows)), lengths)
    names = [labels[slide][row] for slide, found in rows.items() for row in found]
    classes = tuple(sorted(set(names)))
    first = next(iter(encoders.values()))
    grids = {s: first[s].grid for s in rows}
    places = [
        # In µm, like the blocks of the bootstrap: slides differ in pixel size.
        grids[s].centres[found] * np.asarray(grids[s].slide["mpp"], np.float64)
        for s, found in rows.items()
    ]
    return LabelledPatches(
        np.asarray([classes.index(name) for name in names], np.int64),
        classes,
        np.asarray([group_names.index(g) for g in group_of], np.int64)[slides],
        group_names,
        slides.astype(np.int64),
        slide_names,
        np.concatenate(places),
        {
            name: np.concatenate([sets[s].features[r] for s, r in rows.items()])
            for name, sets in encoders.items()
        },
        {
            name: np.concatenate([neighbour_means(sets[s], r) for s, r in rows.items()])
            for name, sets in encoders.items()
        },
        np.concatenate(
            [
                near_other_class(first[s], labels[s], at, BORDER)
                for s, at in zip(rows, places, strict=True)
            ]
        ),
    )


def _group(slide: str, patients: Mapping[str, str] | None) -> str:
    if patients is None:
        return slide
    if slide not in patients:
        raise ConfigError(f"names no patient of {slide}", "--groups")
    return patients[slide]


def read_patients(path: Path) -> dict[str, str]:
    """Read the patient of each slide.

    Parameters
    ----------
    path : Path
        CSV with the columns slide and patient.

    Returns
    -------
    dict of str to str
        Patient by slide.

    Raises
    ------
    ConfigError
        If it cannot be read or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot be read as a table ({error})", path) from None
    if not rows or not {"slide", "patient"} <= set(rows[0]):
        raise ConfigError("needs the columns slide and patient", path)
    return {
        (row["slide"] or "").strip(): (row["patient"] or "").strip() for row in rows
    }


_EXTRACTING = 0.95
"""Share of reading features that computing them takes."""

Files = Mapping[str, Mapping[str, Path]]
"""Feature files by encoder and slide."""


def read_sources(
    config: EvaluateConfig, only: Sequence[str] = ()
) -> Job[dict[str, Sets]]:
    """Read, or first compute, the features of each encoder, as a job.

    Parameters
    ----------
    config : EvaluateConfig
        Folders of features, or slides and encoders.
    only : sequence of str, optional
        Names of the slides whose features to read; by default all.

    Yields
    ------
    Event
        Progress of extraction and reading; notes on slides that are left out.

    Returns
    -------
    dict of str to mapping of str to FeatureSet
        By encoder and slide; only slides that all encoders have.

    Raises
    ------
    ConfigError
        If inputs are missing or contradict each other, or no slide is common to all.
    FeatureError
        If a file is damaged or incomplete.
    """
    if config.features and (config.slides or config.encoder):
        raise ConfigError(
            "cannot be combined with slides and encoders",
            "--features",
            "Give features, or slides with --encoder",
        )
    if config.features and config.centred:
        raise ConfigError("needs slides and --encoder, not --features", "--centred")
    if config.features:
        files: Files = _given(config.features)
    else:
        files = yield from portion(_extracted(config), 0.0, _EXTRACTING)
    if only:
        files = {
            name: {slide: path for slide, path in found.items() if slide in only}
            for name, found in files.items()
        }
    # All encoders are compared on the same slides.
    common = set.intersection(*(set(found) for found in files.values()))
    for name, found in files.items():
        for slide in sorted(set(found) - common):
            yield Note(
                f"{slide} is left out: only {name} has features of it", "warning"
            )
    if not common:
        raise ConfigError("no slide has features of all encoders", "--features")
    start = 0.0 if config.features else _EXTRACTING
    return (yield from portion(_read(files, sorted(common)), start, 1.0))


def _read(files: Files, slides: list[str]) -> Job[dict[str, Sets]]:
    encoders: dict[str, Sets] = {}
    total, done = len(files) * len(slides), 0
    for name, found in files.items():
        sets: dict[str, FeatureSet] = {}
        for slide in slides:
            sets[slide] = read_features(found[slide])
            done += 1
            yield Progress("Reading features", done, total, "files")
        encoders[name] = sets
    return encoders


def _given(features: tuple[str, ...]) -> Files:
    files: dict[str, Mapping[str, Path]] = {}
    for text in features:
        name, folder = _named(text)
        found = _of_slides(sorted(folder.glob(f"*{SUFFIX}")))
        if not found:
            raise ConfigError(
                f"holds no feature files (*{SUFFIX})",
                folder,
                "Run napari-mcm extract",
            )
        if name in files:
            raise ConfigError(
                f"two encoders are named {name}", "--features", "Use NAME=DIR"
            )
        files[name] = found
    return files


def _of_slides(paths: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(slide_of(path), path)
        if other != path:
            raise ConfigError(
                f"and {other.name} are both of slide {slide_of(path)}",
                path,
                "Leave one of them in the folder",
            )
    return found


def _named(text: str) -> tuple[str, Path]:
    """Split ``NAME=DIR``; a folder alone has its own name.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """
    name, mark, folder = text.partition("=")
    # A folder's own name may hold an equals sign.
    if not mark or Path(text).is_dir():
        name, folder = Path(text).resolve().name, text
    if not Path(folder).is_dir():
        raise ConfigError("folder of features does not exist", folder)
    return _clean(name), Path(folder)


def _clean(name: str) -> str:
    """Return a name that a file can have."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "encoder"


def _extracted(config: EvaluateConfig) -> Job[Files]:
    """Extract features into ``out/features``; complete files are kept.

    Raises
    ------
    ConfigError
        If slides or encoders are missing, or no slide could be extracted.
    """
    from napari_mcm.core.features.batch_extraction import extract_slides

    if not config.slides or not config.encoder:
        raise ConfigError(
            "nothing to compare",
            hint="Give --features DIR for each encoder, or slides and --encoder",
        )
    assert config.out is not None
    names = _encoder_names(config.encoder)
    if config.centred:
        from napari_mcm.core.evaluation.labels import extract_spots

        return _by_folder((yield from extract_spots(config, names)))
    out = config.out / "features"
    if len(names) == 1:  # extract_slides makes one folder per encoder for several
        out /= names[config.encoder[0]]
    extraction = ExtractConfig(
        slides=config.slides,
        encoder=config.encoder,
        out=out,
        batch_size=config.batch_size,
        workers=config.workers,
        read=config.read,
        grid=config.grid,
        tissue=config.tissue,
        compute=config.compute,
    )
    done = yield from extract_slides(extraction)
    if not done.files:
        raise ConfigError("no slide could be extracted", hint="; ".join(done.failed))
    return _by_folder(done.files)


def _encoder_names(encoders: Sequence[str]) -> dict[str, str]:
    """Return a folder name for each encoder.

    Raises
    ------
    ConfigError
        If two encoders have the same name.
    """
    names = {}
    for spec in encoders:
        path = Path(spec)
        known = path.exists()
        # A run keeps its encoder in a folder named "encoder".
        own = path.resolve().parent.name if path.stem == "encoder" else path.stem
        names[spec] = _clean(own if known else spec)
    if len(set(names.values())) < len(encoders):
        raise ConfigError(
            "gives two encoders the same name",
            "--encoder",
            "Extract them into separate folders, and use --features NAME=DIR",
        )
    return names


def _by_folder(paths: Sequence[Path]) -> Files:
    """Sort feature files by encoder and slide.

    Raises
    ------
    ConfigError
        If there are none.
    """
    files: dict[str, dict[str, Path]] = {}
    for path in paths:
        files.setdefault(path.parent.name, {})[slide_of(path)] = path
    if not files:
        raise ConfigError("no slide has features")
    return files
