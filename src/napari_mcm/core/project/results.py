"""The results table of a project: one measured area per row, as CSV and for clipboards."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.runtime.files import write_text

Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]

Text = Annotated[str, Field(max_length=2000)]


class ResultRow(BaseModel):
    """An area of one slide that is similar to a query, as it was measured."""

    model_config = ConfigDict(extra="allow", frozen=True)

    slide: Text = Field(description="Name of the slide.")
    query: Text = Field(description="The query in words.")
    encoder: Text = Field(description="Display name of the encoder.")
    context: Text = Field(description="Patches over which features are averaged.")
    threshold: Finite = Field(description="Smallest cosine that counts as similar.")
    area_mm2: Finite = Field(ge=0, description="Area of these patches in mm².")
    tissue_percent: Finite | None = Field(
        None, ge=0, le=100, description="Their share of the patches on tissue, in %."
    )
    patches: int = Field(ge=0, description="Number of these patches.")
    fingerprint: Text = Field("", description="Fingerprint of the slide.")
    added: Text = Field("", description="When the row was added, in UTC.")


COLUMNS: dict[str, tuple[str, Callable[[ResultRow], Any]]] = {
    "slide": ("Slide", lambda row: row.slide),
    "area_mm2": ("mm²", lambda row: round(row.area_mm2, 6)),
    "tissue_percent": (
        "% of tissue",
        lambda row: (
            None if row.tissue_percent is None else round(row.tissue_percent, 4)
        ),
    ),
    "threshold": ("Threshold", lambda row: round(row.threshold, 6)),
    "query": ("Query", lambda row: row.query),
    "encoder": ("Encoder", lambda row: row.encoder),
    "context": ("Context", lambda row: row.context),
    "patches": ("Patches", lambda row: row.patches),
}
"""Name of a column in files to its title for people and the value of a row."""


def as_tsv(rows: Iterable[ResultRow]) -> str:
    """Return rows as tab-separated text, which spreadsheets take from a clipboard.

    Parameters
    ----------
    rows : iterable of ResultRow
        The rows.

    Returns
    -------
    str
        One line of titles and one line per row, with their names for people.
    """
    return _as_text(rows, [title for title, _ in COLUMNS.values()], "excel-tab")


def write_results(path: Path, rows: Iterable[ResultRow]) -> Path:
    """Write rows to a CSV file, whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    rows : iterable of ResultRow
        The rows.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    write_text(Path(path), _as_text(rows, list(COLUMNS), "unix"))
    return Path(path)


def _as_text(rows: Iterable[ResultRow], titles: list[str], dialect: str) -> str:
    text = io.StringIO()
    table = csv.writer(text, dialect, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    table.writerow(titles)
    for row in rows:
        values = (value(row) for _, value in COLUMNS.values())
        table.writerow([_plain(value) for value in values])
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Keep a spreadsheet from taking a name that begins like a formula for one."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t"):
        return f"'{value}"
    return "" if value is None else value
