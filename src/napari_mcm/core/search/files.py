"""Which feature files a search reads: those of a folder, or of a project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.format import SUFFIX, attributes_of, slide_of
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.core.project import ENDING as PROJECT
from napari_mcm.core.project import find_existing, read_project


@dataclass(frozen=True)
class FeatureFiles:
    """Feature files of a cohort.

    Attributes
    ----------
    files : tuple of Path
        In the order of their names, or of the project's slides.
    problems : tuple of str
        One line for each slide that has no feature file.
    """

    files: tuple[Path, ...]
    problems: tuple[str, ...] = ()

    def of_slide(self, name: str) -> list[Path]:
        """Return the files of a slide.

        Parameters
        ----------
        name : str
            Name of the slide, or path of a feature file.

        Returns
        -------
        list of Path
            One per encoder and grid; empty where there is none.
        """
        return [
            file
            for file in self.files
            if name in (slide_of(file), file.name, str(file)) or Path(name) == file
        ]


def list_files(source: Path, encoder: str = "") -> FeatureFiles:
    """List the feature files of a folder or a project.

    Parameters
    ----------
    source : Path
        Folder of feature files, one feature file, or a project file (``.mcm.json``).
    encoder : str, optional
        Fingerprint of an encoder: of a project, and of folders in a folder, only files
        that state it are listed.

    Returns
    -------
    FeatureFiles
        The files, and what is missing.

    Raises
    ------
    FeatureError
        If there is no such folder, or no feature file in it.
    ProjectError
        If the project cannot be read.
    """
    if source.name.endswith(SUFFIX):
        return FeatureFiles((source,))
    if source.is_file() and source.name.lower().endswith(PROJECT):
        return _of_project(source, encoder)
    if not source.is_dir():
        raise FeatureError(
            "is neither a folder of feature files nor a project",
            source,
            f"Give the --out of an extraction, or a project file (*{PROJECT})",
        )
    files = tuple(sorted(source.glob(f"*{SUFFIX}")))
    if not files:
        # An extraction with several encoders writes a folder for each.
        inside = sorted(source.glob(f"*/*{SUFFIX}"))
        files = tuple(
            file
            for file in inside
            if not encoder or fingerprint_of(encoder_of(file)) == encoder
        )
    if not files:
        raise FeatureError(
            f"holds no feature files (*{SUFFIX})",
            source,
            "Compute features first: napari-mcm extract",
        )
    return FeatureFiles(files)


def encoders_of(files: FeatureFiles) -> Counter[tuple[str, str]]:
    """Count the encoders of feature files.

    Parameters
    ----------
    files : FeatureFiles
        The files.

    Returns
    -------
    Counter
        Number of files by fingerprint and name of their encoder.
    """
    found: Counter[tuple[str, str]] = Counter()
    for file in files.files:
        described = encoder_of(file)
        if mark := fingerprint_of(described):
            found[mark, str(described.get("spec") or mark)] += 1
    return found


def encoder_of(file: Path) -> Mapping[str, Any]:
    """Return the encoder that a feature file states.

    Parameters
    ----------
    file : Path
        A feature file; it need not exist.

    Returns
    -------
    mapping
        Empty where it states none.
    """
    described = attributes_of(file).get("encoder")
    return described if isinstance(described, Mapping) else {}


def _of_project(source: Path, encoder: str) -> FeatureFiles:
    project = read_project(source)
    files: list[Path] = []
    problems: list[str] = []
    for number, slide in enumerate(project.slides, 1):
        name = slide.name or f"slide {number}"
        saved = list(slide.state.features.values())
        wanted = [one for one in saved if not encoder or one.encoder == encoder]
        found = [find_existing(one, source, project.folders) for one in wanted]
        files += [file for file in found if file is not None]
        if not saved:
            problems.append(f"{name}: has no features yet, skipped")
        elif not wanted:
            problems.append(f"{name}: has features of other encoders only, skipped")
        elif None in found:
            lost = wanted[found.index(None)]
            where = lost.path or lost.absolute
            problems.append(f"{name}: its feature file {where} is missing, skipped")
    if not files and not problems:
        raise FeatureError("holds no slides", source, "Add slides in the Project dock")
    return FeatureFiles(tuple(dict.fromkeys(files)), tuple(problems))
