"""docs/formats.md says what opening and comparing the files says."""

from __future__ import annotations

from tests.core.slides.formats_report import real_table, table_of, written_table


def test_the_table_of_real_slides_is_true(repository, shared_data):
    page = (repository / "docs" / "formats.md").read_text()
    assert list(table_of(page, "real")) == real_table(shared_data / "slides")


def test_the_table_of_written_files_is_true(repository):
    page = (repository / "docs" / "formats.md").read_text()
    assert list(table_of(page, "written")) == written_table()
