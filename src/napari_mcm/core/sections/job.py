"""Register two slides, and carry files of the first over to the second, as a job."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.registration import (
    Registration,
    read_registration,
    register_sections,
    section_map,
    write_registration,
)
from napari_mcm.core.runtime.files import write_json
from napari_mcm.core.runtime.jobs import Job, Progress
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.sections.config import RegisterConfig
from napari_mcm.core.sections.files import (
    CarriedFile,
    carry_file,
    check_kind,
    write_left_out,
)
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import find_tissue


@dataclass(frozen=True)
class RegisterResult:
    """A registration, and what was carried with it.

    Attributes
    ----------
    registration : Registration
        Map from the first section to the second.
    files : tuple of Path
        What was written.
    carried : tuple of CarriedFile
        What was carried over.
    """

    registration: Registration
    files: tuple[Path, ...]
    carried: tuple[CarriedFile, ...]


def register_slides(config: RegisterConfig) -> Job[RegisterResult]:
    """Register two slides, and carry files of the first over to the second.

    Parameters
    ----------
    config : RegisterConfig
        Two slides, files to carry, output folder.

    Yields
    ------
    Progress
        Several times a second.

    Returns
    -------
    RegisterResult
        Written to the folder: ``registration.npz``, the same without its arrays as
        ``registration.json``, each file that was carried, and ``left_out.csv`` where
        something has no place on the second slide.

    Raises
    ------
    ConfigError
        If the slides are not two, or a file cannot be carried.
    RegistrationError
        If the sections do not correspond, or the given registration is of others.
    SlideError, GridError, LabelError
        If a slide or a file cannot be read.
    """
    if config.out is None:
        raise ConfigError("no output folder given", hint="Choose one with --out")
    if len(config.slides) != 2:
        raise ConfigError(
            f"needs two slides, not {len(config.slides)}",
            hint="Give two neighbouring sections of one block",
        )
    for path in config.carry:
        check_kind(path)
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(config.read.open(path)) for path in config.slides
        )
        check_different(first, second)
        if config.use is None:
            registration = yield from register_sections(
                first, second, config.registration, config.tissue
            )
        else:
            registration = read_registration(config.use)
            section_map(registration, first, second)
        files = _write(registration, config.out)
        carried = yield from _carry(config, registration, (first, second))
    if any(one.left_out for one in carried):
        files += (config.out / "left_out.csv",)
        write_left_out(files[-1], carried)
    return RegisterResult(registration, files, carried)


def check_different(first: Slide, second: Slide) -> None:
    """Refuse one slide twice.

    Parameters
    ----------
    first, second : Slide
        The slides.

    Raises
    ------
    ConfigError
        If they are one slide.
    """
    if first.fingerprint == second.fingerprint:
        raise ConfigError(
            f"{first.name} and {second.name} are the same slide",
            hint="Give two different sections of one block",
        )


def _write(registration: Registration, folder: Path) -> tuple[Path, ...]:
    files = folder / "registration.npz", folder / "registration.json"
    write_registration(files[0], registration)
    write_json(files[1], registration.describe())
    return files


def _carry(
    config: RegisterConfig, registration: Registration, slides: tuple[Slide, Slide]
) -> Job[tuple[CarriedFile, ...]]:
    if not config.carry:
        return ()
    assert config.out is not None
    mapping = section_map(registration, *slides)
    stage = "Carrying over"
    tissue = yield from run_in_thread(
        stage, find_tissue, slides[1], config.tissue, abandon=True
    )
    carried = []
    for number, path in enumerate(config.carry):
        shown = Progress(stage, number, len(config.carry), unit="files")
        one = yield from run_in_thread(
            shown, carry_file, mapping, slides, tissue, path, config.out
        )
        carried.append(one)
    return tuple(carried)
