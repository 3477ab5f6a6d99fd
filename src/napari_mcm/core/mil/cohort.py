"""The cohort: a table of slides with their labels, patients and parts."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_mcm.core.errors import ConfigError

NAMES = {
    "slide": ("slide", "slide_id", "slide_name", "image", "image_id", "filename"),
    "label": ("label", "class", "target", "diagnosis", "y"),
    "patient": ("patient", "patient_id", "case", "case_id", "subject", "subject_id"),
    "split": ("split", "set", "subset", "partition"),
    "fold": ("fold", "fold_id"),
    "path": ("path", "slide_path", "file"),
}
"""Accepted column names by content, in any case; the first that exists is used."""

# The longer suffix of two comes first: x.ome.tif is slide x, not x.ome.
_ENDINGS = (
    ".ome.tiff",
    ".ome.tif",
    ".ome.zarr",
    ".svs",
    ".tiff",
    ".tif",
    ".btf",
    ".ndpi",
    ".scn",
    ".bif",
    ".mrxs",
    ".qptiff",
    ".dcm",
    ".zarr",
    ".vsi",
)


@dataclass(frozen=True)
class Case:
    """One slide of a cohort.

    Attributes
    ----------
    slide, label, patient : str
        Its name without the suffix of a slide file, its class, and its patient. Where the
        table names no patient, that is the slide itself.
    split, fold, path : str
        As in the table; empty where it has no such column.
    """

    slide: str
    label: str
    patient: str
    split: str = ""
    fold: str = ""
    path: str = ""


@dataclass(frozen=True)
class Cohort:
    """A table of slides.

    Attributes
    ----------
    cases : tuple of Case
        In the table's order.
    source : Path
        The table.
    has_patients : bool
        Whether the table names patients.
    """

    cases: tuple[Case, ...]
    source: Path
    has_patients: bool

    @property
    def classes(self) -> list[str]:
        """Return the labels, sorted; numbers are sorted by value.

        Returns
        -------
        list of str
            Each label once.
        """
        found = {case.label for case in self.cases}
        return sorted(found, key=lambda text: (_number(text), text))

    def without(self, slides: Sequence[str]) -> Cohort:
        """Return the cohort without some slides.

        Parameters
        ----------
        slides : sequence of str
            Names of the slides to leave out.

        Returns
        -------
        Cohort
            The remaining cases, in the same order.
        """
        gone = set(slides)
        kept = tuple(case for case in self.cases if case.slide not in gone)
        return Cohort(kept, self.source, self.has_patients)


def slide_key(name: str) -> str:
    """Return a slide's name without folders and without the suffix of a slide file.

    Parameters
    ----------
    name : str
        A name or path, such as ``"slides/a.svs"``.

    Returns
    -------
    str
        Such as ``"a"``.
    """
    name = Path(name.strip()).name
    for ending in _ENDINGS:
        # Path.stem would cut names that hold dots, such as TCGA-A1.B2.
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def read_cohort(path: Path, labelled: bool = True) -> Cohort:
    """Read a table of slides.

    Parameters
    ----------
    path : Path
        A CSV file with a header; columns are found by their usual names, see ``NAMES``.
    labelled : bool, optional
        Whether every slide must have a label.

    Returns
    -------
    Cohort
        The table's slides.

    Raises
    ------
    ConfigError
        If the table cannot be read, lacks a column or a value, or names a slide twice.
    """
    path = Path(path)
    header, rows = _read(path)
    columns = {what: _column(header, names) for what, names in NAMES.items()}
    for what in ("slide", "label") if labelled else ("slide",):
        if columns[what] is None:
            raise ConfigError(
                f"has no column of {what}s",
                path,
                f"Name it one of {', '.join(NAMES[what])}; the table has "
                f"{', '.join(header)}",
            )
    cases = [_case(row, columns, path, n) for n, row in enumerate(rows, 2)]
    _check(cases, path, labelled)
    return Cohort(tuple(cases), path, columns["patient"] is not None)


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        # Tables that spreadsheets have saved begin with a byte-order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if any(row.values())]
            return [name.strip() for name in reader.fieldnames or []], rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot be read as a table ({error})", path) from error


def _column(header: Sequence[str], names: Sequence[str]) -> str | None:
    known = {name.lower().replace(" ", "_"): name for name in header}
    return next((known[name] for name in names if name in known), None)


def _case(
    row: Mapping[str, str], columns: Mapping[str, str | None], path: Path, line: int
) -> Case:
    # csv puts surplus cells under None.
    row = {(name or "").strip(): value for name, value in row.items()}

    def value(what: str) -> str:
        found = row.get(columns[what] or "", "")
        return (found or "").strip() if isinstance(found, str) else ""

    slide = slide_key(value("slide"))
    if not slide:
        raise ConfigError(f"names no slide in line {line}", path)
    # Without patients every slide is its own: then slides of one patient may leak.
    patient = value("patient") or slide
    parts = value("split").lower(), value("fold"), value("path")
    return Case(slide, value("label"), patient, *parts)


def _check(cases: Sequence[Case], path: Path, labelled: bool) -> None:
    if not cases:
        raise ConfigError("holds no slides", path)
    seen: set[str] = set()
    for case in cases:
        if case.slide in seen:
            raise ConfigError(f"names slide {case.slide} twice", path)
        seen.add(case.slide)
        if labelled and not case.label:
            raise ConfigError(
                f"has no label for slide {case.slide}", path, "Leave it out, or add it"
            )
    if labelled and len({case.label for case in cases}) < 2:
        raise ConfigError(
            f"has one label only ({cases[0].label})",
            path,
            "Training needs two classes or more",
        )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")
