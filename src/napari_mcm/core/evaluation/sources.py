"""Where features come from: folders of feature files, or slides and encoders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.evaluation.config import EvaluateConfig
from napari_mcm.core.evaluation.labelled import Sets
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.layout import SUFFIX, slide_of
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.jobs import Job, Note, Progress

Files = Mapping[str, Mapping[str, Path]]
"""Feature files by encoder and slide."""


def read_sources(config: EvaluateConfig) -> Job[dict[str, Sets]]:
    """Read, or first compute, the features of each encoder.

    Returns
    -------
    dict of str to mapping of str to FeatureSet
        By encoder and slide; slides that all encoders have.

    Raises
    ------
    ConfigError
        If there are no or contradictory inputs, or no common slide.
    FeatureError
        If a file is damaged or incomplete.
    """
    if config.features and (config.slides or config.encoder):
        raise ConfigError(
            "is given beside slides and encoders",
            "--features",
            "Give features, or slides with --encoder",
        )
    if config.features and config.centred:
        raise ConfigError("needs slides and --encoder, not --features", "--centred")
    if config.features:
        files: Files = _given(config.features)
    else:
        files = yield from _extracted(config)
    common = set.intersection(*(set(found) for found in files.values()))
    for name, found in files.items():
        for slide in sorted(set(found) - common):
            yield Note(
                f"{slide} is left out: only {name} has features of it", "warning"
            )
    if not common:
        raise ConfigError("no slide has features of all encoders", "--features")
    return (yield from _read(files, sorted(common)))


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
                "Make them with napari-mcm extract",
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
    """Take ``NAME=DIR`` apart; a folder by itself is named as it is called."""
    name, mark, folder = text.partition("=")
    if not mark or Path(text).is_dir():
        name, folder = Path(text).resolve().name, text
    if not Path(folder).is_dir():
        raise ConfigError("no such folder of features", folder)
    return _clean(name), Path(folder)


def _clean(name: str) -> str:
    """Make a name that files can have."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "encoder"


def _extracted(config: EvaluateConfig) -> Job[Files]:
    """Extract into ``out/features``; what is there is taken as it is."""
    from napari_mcm.core.features.slides import extract_slides

    if not config.slides or not config.encoder:
        raise ConfigError(
            "nothing to compare",
            hint="Give --features DIR for each encoder, or slides and --encoder",
        )
    assert config.out is not None
    names = _encoder_names(config.encoder)
    if config.centred:
        from napari_mcm.core.evaluation.spots import extract_spots

        return _by_folder((yield from extract_spots(config, names)))
    out = config.out / "features"
    if len(names) == 1:  # several get a folder each by themselves
        out /= names[config.encoder[0]]
    asked = ExtractConfig(
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
    done = yield from extract_slides(asked)
    if not done.files:
        raise ConfigError("no slide could be extracted", hint="; ".join(done.failed))
    return _by_folder(done.files)


def _encoder_names(encoders: Sequence[str]) -> dict[str, str]:
    """Name a folder for each encoder."""
    names = {}
    for spec in encoders:
        path = Path(spec)
        known = path.exists()
        # A run holds its encoder in a folder of that name.
        own = path.resolve().parent.name if path.stem == "encoder" else path.stem
        names[spec] = _clean(own if known else spec)
    if len(set(names.values())) < len(encoders):
        raise ConfigError(
            "names two encoders alike",
            "--encoder",
            "Extract them into folders of their own, and use --features NAME=DIR",
        )
    return names


def _by_folder(paths: Sequence[Path]) -> Files:
    """Sort feature files by encoder and slide."""
    files: dict[str, dict[str, Path]] = {}
    for path in paths:
        files.setdefault(path.parent.name, {})[slide_of(path)] = path
    if not files:
        raise ConfigError("no slide has features")
    return files
