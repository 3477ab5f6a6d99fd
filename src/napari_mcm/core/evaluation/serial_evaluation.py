"""Evaluation of encoders on two serial sections, from slides to tables, without labels.

The sections are registered first, as sections that do not correspond are found within
seconds; then features are extracted, or read from folders, and asked.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from napari_mcm.core.encoders.learned_from import seen_slides, seen_warning
from napari_mcm.core.errors import ConfigError, RegistrationError
from napari_mcm.core.evaluation.config import EvaluateConfig
from napari_mcm.core.evaluation.dataset import Sets, read_sources
from napari_mcm.core.evaluation.serial import (
    ClickTest,
    choose_places,
    rank_places,
)
from napari_mcm.core.evaluation.serial_result import (
    SerialEvaluation,
    compare_clicks,
    write_serial,
)
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.registration import (
    Registration,
    read_registration,
    register_sections,
    write_registration,
)
from napari_mcm.core.runtime.jobs import Job, Note
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.slides import Slide

# To be raised when registrations change, so that no stored one is read.
_VERSION = 1


def evaluate_serial(config: EvaluateConfig) -> Job[SerialEvaluation]:
    """Compare encoders by the click test on two serial sections, as a job.

    Parameters
    ----------
    config : EvaluateConfig
        Two slides; encoders, or folders of features of both; output folder.

    Yields
    ------
    Event
        Progress of registration, extraction and ranking; notes.

    Returns
    -------
    SerialEvaluation
        Also written to the output folder. Registration and features are kept there, and
        reused.

    Raises
    ------
    ConfigError
        If inputs are missing or do not fit each other.
    RegistrationError
        If a slide holds no tissue, or the slides do not correspond.
    SlideError, FeatureError
        If a slide or its features cannot be read.
    """
    began = time.monotonic()
    if config.out is None:
        raise ConfigError("no output folder given", hint="Choose one with --out")
    if len(config.slides) != 2:
        raise ConfigError(
            f"needs two slides, not {len(config.slides)}",
            "--serial",
            "Give two neighbouring sections of one block",
        )
    if config.labels or config.centred:
        raise ConfigError("uses no labels", "--serial", "Leave --labels out")
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(config.read.open(path)) for path in config.slides
        )
        _check_different(first, second)
        registration = yield from register_cached(config, config.out, first, second)
        names = first.name, second.name
    yield Note(f"registration error: {registration.residual.describe()}")
    encoders = yield from _features(config, names)
    for name, sets in encoders.items():
        slides = [one.grid.slide for one in sets.values()]
        learned = seen_slides(next(iter(sets.values())).encoder, slides)
        warning = seen_warning(name, learned)
        if warning:
            yield Note(warning, "warning")
    tests = yield from _ask(config, encoders, names, registration)
    protocol = config.protocol
    rows, squares = compare_clicks(
        tests, protocol.block_um, protocol.resamples, protocol.seed
    )
    patch_um = next(iter(encoders.values()))[names[0]].grid.patch_um
    seconds = time.monotonic() - began
    result = SerialEvaluation(registration, tests, patch_um, rows, squares, seconds)
    write_serial(config.out, result)
    return result


def register_cached(
    config: EvaluateConfig, out: Path, first: Slide, second: Slide
) -> Job[Registration]:
    """Register two sections, or read their earlier registration.

    Parameters
    ----------
    config : EvaluateConfig
        Options of registration and tissue.
    out : Path
        Folder of the file, whose name holds a hash of slides and options.
    first, second : Slide
        The sections.

    Yields
    ------
    Event
        Progress of the registration.

    Returns
    -------
    Registration
        Map from the first section to the second.

    Raises
    ------
    RegistrationError
        If the sections do not correspond.
    """
    depends = {
        "version": _VERSION,
        "slides": [[s.fingerprint, list(s.mpp)] for s in (first, second)],
        "registration": config.registration.model_dump(mode="json"),
        "tissue": config.tissue.model_dump(mode="json"),
    }
    text = json.dumps(depends, sort_keys=True)
    key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    path = out / f"registration-{key}.npz"
    if path.exists():
        try:
            return read_registration(path)
        except RegistrationError as error:
            yield Note(f"{error}; it is computed again", "warning")
    found = yield from register_sections(
        first, second, config.registration, config.tissue
    )
    write_registration(path, found)
    return found


def _check_different(first: Slide, second: Slide) -> None:
    """Refuse one slide twice, and two slides of one name.

    Raises
    ------
    ConfigError
        If they are one slide, or share a name.
    """
    if first.fingerprint == second.fingerprint:
        raise ConfigError(
            f"{first.name} and {second.name} are the same slide",
            "--serial",
            "Give two different sections of one block",
        )
    if first.name == second.name:
        raise ConfigError(
            f"both slides are named {first.name}, as their features would be",
            "--serial",
            "Rename one of them",
        )


def _features(config: EvaluateConfig, names: tuple[str, str]) -> Job[dict[str, Sets]]:
    """Return features of both sections by encoder.

    Raises
    ------
    ConfigError
        If one of them has none.
    """
    if config.features:
        if config.encoder:
            raise ConfigError("cannot be combined with --encoder", "--features")
        config = config.model_copy(update={"slides": ()})
    encoders = yield from read_sources(config, names)
    missing = [name for name in names if name not in next(iter(encoders.values()))]
    if missing:
        raise ConfigError(
            f"no features of {missing[0]} by all encoders",
            "--features" if config.features else "--serial",
        )
    return encoders


def _ask(
    config: EvaluateConfig,
    encoders: dict[str, Sets],
    names: tuple[str, str],
    registration: Registration,
) -> Job[dict[tuple[str, NeighbourhoodConfig], ClickTest]]:
    """Ask every encoder the same queries, patch alone and with its neighbourhood.

    Raises
    ------
    ConfigError
        If encoders have features of different patches.
    """
    sets = [(found[names[0]], found[names[1]]) for found in encoders.values()]
    # The same queries for all: patches that every encoder has features of.
    rows = np.flatnonzero(np.logical_and.reduce([first.ok for first, _ in sets]))
    grids = {(a.grid.fingerprint, b.grid.fingerprint) for a, b in sets}
    if len(grids) > 1:
        raise ConfigError(
            "encoders have features of different patches",
            "--features",
            "Extract them with the same --mpp and --patch-size",
        )
    places = choose_places(*sets[0], registration, config.click, rows)
    contexts = dict.fromkeys((NeighbourhoodConfig(), config.neighbourhood))
    tests = {}
    for encoder, (first, second) in zip(encoders, sets, strict=True):
        for context in contexts:
            stage = f"Asking {encoder}"
            pair = [first, second]
            if context.radius:
                for i, one in enumerate(pair):
                    pair[i] = yield from run_in_thread(
                        stage, average_neighbourhood, one, context, abandon=True
                    )
            tests[encoder, context] = yield from run_in_thread(
                stage, rank_places, *pair, places, abandon=True
            )
    return tests
