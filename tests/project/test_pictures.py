"""Every picture of the docs is made by a script, shown somewhere, and there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

SHOWN = re.compile(r"pictures/([\w.-]+\.png)")
BY_RESULTS = "results-"


@pytest.fixture
def stored(repository: Path) -> set[str]:
    """The pictures that are there."""
    return {path.name for path in (repository / "docs" / "pictures").iterdir()}


@pytest.fixture
def taken(repository: Path) -> set[str]:
    """The pictures that the script takes."""
    script = runpy.run_path(str(repository / "docs" / "make_pictures.py"))
    return {f"{name}.png" for names in script["PICTURES"].values() for name in names}


def shown(repository: Path) -> set[str]:
    """The pictures that pages and the README name."""
    pages = [repository / "README.md", *(repository / "docs").rglob("*.md")]
    return {
        name
        for page in pages
        if "_build" not in page.parts
        for name in SHOWN.findall(page.read_text(encoding="utf-8"))
    }


def test_each_picture_is_made_by_a_script(stored: set[str], taken: set[str]):
    by_hand = {name for name in stored - taken if not name.startswith(BY_RESULTS)}
    assert not by_hand, "no script makes them"
    assert not taken - stored, "they are taken and not stored"


def test_each_part_of_the_script_takes_what_it_says(repository: Path):
    script = runpy.run_path(str(repository / "docs" / "make_pictures.py"))
    how = (repository / "docs" / "screenshot_scenarios.py").read_text(encoding="utf-8")
    functions = dict(re.findall(r"^def (\w+)\((.*?)(?=^def |\Z)", how, re.M | re.S))
    for part, names in script["PICTURES"].items():
        takes = r'(?:studio\.take\(|out / )"([\w-]+)'
        assert tuple(re.findall(takes, functions[part])) == names


def test_each_picture_is_shown_and_each_shown_one_is_there(
    repository: Path, stored: set[str]
):
    named = shown(repository)
    assert not named - stored, "pages show pictures that are not there"
    assert not stored - named, "no page shows them"
