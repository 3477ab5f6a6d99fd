"""The tables of the documentation are made by reading files, and up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.features.interchange import interchange_report as report

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_page_is_true(repository: Path) -> None:
    page = (repository / "docs" / "interchange.md").read_text(encoding="utf-8")
    again = report.update(page)
    hint = "run: python -m tests.core.features.interchange.interchange_report"
    assert again == page, hint
    for tool in (*report.CONSUMERS, *report.PRODUCERS):
        assert f"| {tool.tool} | {tool.kind} |" in page
