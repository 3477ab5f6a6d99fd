"""The pages of results agree with each other and with their templates."""

from __future__ import annotations

import re

import pytest
from benchmarks.results import pages

STUDY_PAGES = sorted(
    path.stem for path in pages.TEMPLATES.glob("*.md") if path.stem != "results"
)


def test_the_summary_has_the_figures_of_the_pages():
    assert pages.SUMMARY.read_text(encoding="utf-8") == pages.summary()


@pytest.mark.parametrize("name", STUDY_PAGES)
def test_a_page_is_its_template_with_values(name: str):
    parts = re.split(r"<<[\w-]+>>", pages.template(name))
    page = (pages.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    filled = ".+?".join(re.escape(part) for part in parts)
    assert re.fullmatch(filled, page, re.DOTALL)


def test_every_page_has_a_template():
    assert sorted(path.stem for path in pages.FOLDER.glob("*.md")) == STUDY_PAGES


def test_a_cell_is_named_by_its_first_cells():
    name = "BCCD, cropped: linear probe"
    gain = pages.cell(
        "tables-cells", name, "100 % + mae:pretraining", "balanced accuracy"
    )
    assert gain.startswith("+")
    with pytest.raises(LookupError, match="no cell 70 %"):
        pages.cell("tables-cells", name, "70 %", "accuracy")
    with pytest.raises(LookupError, match="no heading 'Spleens'"):
        pages.cell("tables-cells", "Spleens", "100 %", "accuracy")
