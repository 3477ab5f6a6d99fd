"""Records of a study's trials: what a trial was started with, and whether it is finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from napari_mcm.core.errors import RunError
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.studies.study_config import (
    StudyConfig,
    StudySlide,
    Trial,
    arm_config,
)


def trial_options(config: StudyConfig, cell: Trial) -> FinetuneConfig:
    """Return the fine-tuning options of a trial.

    Parameters
    ----------
    config : StudyConfig
        The study, with its directory.
    cell : Trial
        The trial.

    Returns
    -------
    FinetuneConfig
        With the slides of the fold, and the run's directory.
    """
    assert config.out is not None
    slides = tuple(slide.slide for slide in cell.fold.train)
    run = cell.folder(config.out) / "run"
    return arm_config(config, cell.arm, cell.seed, slides, run)


def trial_identity(config: StudyConfig, cell: Trial) -> dict[str, Any]:
    """Return everything that a trial's metrics depend on.

    Radii and serial sections are left out: adding some repeats the evaluation only.

    Parameters
    ----------
    config : StudyConfig
        The study, with its directory.
    cell : Trial
        The trial.

    Returns
    -------
    dict of str to Any
        Ready for JSON.
    """
    arm = config.arms[cell.arm]
    found = {
        "options": None if arm.encoder else _relevant(trial_options(config, cell)),
        "encoder": arm.encoder,
        "test": [slide.model_dump(mode="json") for slide in cell.fold.test],
        "evaluation": dict(config.evaluation),
        "pooled": config.pooled,
        "subsets": {name: list(group) for name, group in config.subsets.items()},
        "border": config.border,
        "clicks": dict(config.clicks),
    }
    content: dict[str, Any] = json.loads(json.dumps(found))
    return content


# What trials of versions without these options were evaluated with.
_BEFORE = {"pooled": False, "subsets": {}, "border": 0.0}


def _relevant(options: FinetuneConfig) -> dict[str, Any]:
    """Return the options that metrics depend on; a preset's name adds nothing to them."""
    irrelevant = {"out", "workers", "checkpoint_seconds", "compute", "preset"}
    return options.model_dump(mode="json", exclude=irrelevant)


def _begun(folder: Path) -> dict[str, Any] | None:
    """Read a trial's options; those that an older version did not have get their default."""
    begun = _read(folder / "cell.json")
    if begun is None:
        return begun
    begun = {**_BEFORE, **begun}
    try:
        begun["test"] = [
            StudySlide.model_validate(slide).model_dump(mode="json")
            for slide in begun["test"]
        ]
        if begun["options"] is not None:
            options = FinetuneConfig.model_validate(begun["options"])
            begun["options"] = _relevant(options)
    except ValidationError:
        return begun
    return begun


def read_summary(config: StudyConfig, cell: Trial) -> dict[str, Any] | None:
    """Read a trial's result.

    Parameters
    ----------
    config : StudyConfig
        The study, with its directory.
    cell : Trial
        The trial.

    Returns
    -------
    dict of str to Any or None
        None if it is not finished.

    Raises
    ------
    RunError
        If it was started with other options.
    """
    assert config.out is not None
    folder = cell.folder(config.out)
    summary = _read(folder / "summary.json")
    begun = _begun(folder)
    wanted = trial_identity(config, cell)
    if begun is not None and not (summary or {}).get("serial"):
        # No click was tested yet: its options may still change.
        begun["clicks"] = wanted["clicks"]
    if begun is not None and begun != wanted:
        raise RunError(
            "was started with other options or slides",
            folder,
            "Remove it to run it again, or choose another --out",
        )
    return summary


def has_all(config: StudyConfig, summary: Mapping[str, Any]) -> bool:
    """Return whether a trial needs no further evaluation.

    Parameters
    ----------
    config : StudyConfig
        The study.
    summary : mapping
        Content of the trial's ``summary.json``.

    Returns
    -------
    bool
        True where it has all radii and serial sections of the study.
    """
    radii = summary.get("by_radius") or {"0": summary["figures"]}
    pairs = summary.get("serial", [])
    return all(str(radius) in radii for radius in config.radii) and all(
        pair.name in pairs for pair in config.serial
    )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot be read ({error})", path, "Remove it to run its trial again"
        ) from error
    return content
