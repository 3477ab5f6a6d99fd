"""The page of options is made from the models, and up to date."""

from __future__ import annotations

from pathlib import Path

from napari_mcm.cli.app import VERBS
from napari_mcm.cli.reference import reference, update

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_every_verb_has_its_table() -> None:
    text = reference()
    for verb in VERBS:
        assert f"### {verb}\n" in text
    assert (
        "| `--patch-size` | N | 224 | Side of a patch, in pixels of that mpp |" in text
    )


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    hint = "run: python -m napari_mcm.cli.reference docs/cli.md"
    assert update(page) == page, hint
