"""Verification that feature files are complete, undamaged, and of the right slide."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.errors import ConfigError, FeatureError, GridError
from napari_mcm.core.features.format import (
    SCHEMA,
    SUFFIX,
    VERSION,
    attributes_of,
    holds_nothing_else,
    read_metadata,
)
from napari_mcm.core.features.integrity import Contents, check_file
from napari_mcm.core.features.write_lock import held_by
from napari_mcm.core.runtime.jobs import Job, Progress
from napari_mcm.core.slides import ReadConfig

State = Literal["ok", "incomplete", "damaged", "refused"]


class VerifyConfig(BaseModel):
    """Select the feature files to verify, and the slides to compare them with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: tuple[Path, ...] = Field(
        description=f"Feature files, or folders that contain them (*{SUFFIX})."
    )
    slide: Path | None = Field(
        None, description="Slide that all files must belong to, by its content."
    )
    slides: tuple[Path, ...] = Field(
        (),
        description="Slides, or folders of them: each file must belong to the slide "
        "of its name.",
    )
    read: ReadConfig = ReadConfig()


@dataclass(frozen=True)
class Verdict:
    """The result for one file.

    Attributes
    ----------
    file : Path
        The feature file.
    state : {"ok", "incomplete", "damaged", "refused"}
        ``"refused"`` is not a feature file, of a later version, or of another slide.
    what : str
        The verdict in words, without the file's name.
    contents : Contents or None
        None where it is damaged, refused, or still empty.
    """

    file: Path
    state: State
    what: str
    contents: Contents | None = None

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def verify_files(config: VerifyConfig) -> Job[list[Verdict]]:
    """Verify feature files one after the other, as a job.

    Parameters
    ----------
    config : VerifyConfig
        Files and slides; `slides` are files here, not folders.

    Yields
    ------
    Progress
        After each block.

    Returns
    -------
    list of Verdict
        One per file.

    Raises
    ------
    ConfigError
        If a path does not exist, or a folder holds no feature file.
    SlideError
        If a slide cannot be opened.
    """
    files = find_files(config.files)
    slides = yield from _open_slides(config)
    verdicts = []
    for file in files:
        verdict = yield from verify_file(file)
        verdicts.append(slides.judge(verdict))
    return verdicts


def verify_file(path: Path) -> Job[Verdict]:
    """Verify one feature file, without its slide, as a job.

    Parameters
    ----------
    path : Path
        The feature file.

    Yields
    ------
    Progress
        After each block.

    Returns
    -------
    Verdict
        Any problem is a verdict and not an error.
    """
    try:
        stated = _stated(path)
        if isinstance(stated, Verdict):
            return stated
        contents = yield from check_file(path, stated)
    except (FeatureError, GridError) as error:
        return Verdict(path, "damaged", f"damaged ({_one_line(error.what)})")
    except OSError as error:
        return Verdict(path, "refused", f"cannot be read ({error.strerror or error})")
    # Absurd numbers in a file make libraries raise any kind of error.
    except Exception as error:  # noqa: BLE001
        return Verdict(path, "damaged", f"damaged ({_one_line(str(error))})")
    if not contents.complete:
        return Verdict(path, "incomplete", _incomplete(path, contents), contents)
    note = "" if contents.checksums else "; written without checksums"
    return Verdict(path, "ok", f"ok ({contents.rows} rows{note})", contents)


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Replace each folder by the feature files below it.

    Parameters
    ----------
    paths : iterable of Path
        Feature files and folders.

    Returns
    -------
    list of Path
        In the order given, those of a folder sorted by name; each once.

    Raises
    ------
    ConfigError
        If a path does not exist, or a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError("no such file", path, "Check the path")
        if not path.is_dir() or path.name.endswith(SUFFIX) or attributes_of(path):
            found.append(path)
            continue
        inside = sorted(_below(path))
        if not inside:
            raise ConfigError(f"holds no feature files (*{SUFFIX})", path)
        found += inside
    if not found:
        raise ConfigError("no feature files given")
    # A file that is named and lies in a named folder is verified once.
    return list(dict.fromkeys(found))


def _below(folder: Path) -> Iterator[Path]:
    for place, names, _ in os.walk(folder):
        yield from (Path(place, name) for name in names if name.endswith(SUFFIX))
        # os.walk descends only into the names that stay in the list.
        names[:] = [
            n for n in names if not n.endswith((SUFFIX, ".zarr")) and n[0] != "."
        ]


def _stated(path: Path) -> dict[str, Any] | Verdict:
    """Read a file's metadata, or return a verdict where it is no feature file."""
    foreign = Verdict(
        path,
        "refused",
        "is not a feature file of napari-mcm; see napari-mcm convert",
    )
    # A killed extraction may leave a folder without metadata: the name identifies it.
    named = path.name.endswith(SUFFIX) and path.is_dir()
    attributes = attributes_of(path)
    if not attributes and named and _is_begun(path):
        return Verdict(
            path, "incomplete", "incomplete (empty; run the same extraction to resume)"
        )
    if not (attributes or named):
        return foreign
    metadata = read_metadata(path)
    if attributes.get("schema") != SCHEMA:
        return foreign
    if attributes.get("version") != VERSION:
        what = f"has version {attributes.get('version')}, this program reads {VERSION}"
        return Verdict(path, "refused", what)
    return metadata


def _is_begun(path: Path) -> bool:
    """Return whether an extraction was killed before it had written anything."""
    return holds_nothing_else(path) and not any(path.glob("features/c/*"))


def _incomplete(path: Path, contents: Contents) -> str:
    who = held_by(path)
    then = f"being written by {who}" if who else "run the same extraction to resume"
    return f"incomplete ({contents.done} of {contents.rows} rows; {then})"


class _Slides:
    """Slides that files must belong to: one for all files, or one per name."""

    def __init__(self, one: str | None, named: Mapping[str, str]) -> None:
        self._one, self._named = one, named

    def judge(self, verdict: Verdict) -> Verdict:
        """Refuse an undamaged file that belongs to none of the slides."""
        if verdict.contents is None or (self._one is None and not self._named):
            return verdict
        found = verdict.contents.slide
        known = [self._one] if self._one is not None else list(self._named.values())
        if found in known:
            return verdict
        name = str(attributes_of(verdict.file)["grid"]["slide"]["name"])
        wanted = self._one if self._one is not None else self._named.get(name)
        if not found:
            what = "does not name its slide; napari-mcm convert --slide adds the slide"
        elif wanted is None:
            what = f"belongs to {name} ({found}), which is none of the slides"
        else:
            what = f"belongs to another slide than {name}: {found} there, {wanted} now"
        return Verdict(verdict.file, "refused", what, verdict.contents)


def _open_slides(config: VerifyConfig) -> Job[_Slides]:
    """Read the fingerprints of the slides, each of which is opened once."""
    if config.slide is not None:
        with config.read.open(config.slide) as slide:
            return _Slides(slide.fingerprint, {})
    named: dict[str, str] = {}
    for number, path in enumerate(config.slides):
        yield Progress("Opening slides", number, len(config.slides), "slides")
        with config.read.open(path) as slide:
            named[slide.name] = slide.fingerprint
    return _Slides(None, named)


def _one_line(text: str) -> str:
    return " ".join(text.split())
