"""Label sets: one label per place, and classes that change."""

from __future__ import annotations

import pytest

from napari_mcm.core.errors import LabelError
from napari_mcm.core.labelling import (
    LabelClass,
    LabelSet,
    PatchLabel,
    labels_of_rows,
    merge_labels,
    read_labels,
    write_labels,
)
from napari_mcm.core.runtime.files import stamp_of
from tests.core.labelling.made_labels import make_grid


def label(x: int, name: str, author: str = "ada", at: str = "1", **more: object):
    """Give a label of a square of 10 px."""
    known = {"slide": "s", "x": x, "y": 0, "width": 10, "height": 10} | more
    return PatchLabel(label=name, author=author, made_at=at, **known)  # type: ignore[arg-type]


def two() -> LabelSet:
    """Give two classes and one label of each."""
    made = LabelSet().with_names(["a", "b"])
    return made.with_labels([label(0, "a"), label(10, "b")])


def test_a_place_that_is_labelled_again_has_the_new_class() -> None:
    found = two().with_labels([label(0, "b"), label(0, "b", slide="other")])
    assert [(one.slide, one.x, one.label) for one in found.labels] == [
        ("s", 10, "b"),
        ("s", 0, "b"),
        ("other", 0, "b"),
    ]
    assert found.counts() == {"a": 0, "b": 3}
    assert len(found.of_slide("s")) == 2


def test_labels_are_taken_away_by_their_place() -> None:
    made = two()
    assert made.without([made.labels[0].place]).labels == made.labels[1:]
    assert len(made) == 2  # never changed in place


def test_a_class_can_be_renamed_merged_and_removed() -> None:
    made = two()
    renamed = made.rename_class("a", "c")
    assert renamed.names == ("c", "b")
    assert renamed.labels[0].label == "c"
    merged = made.rename_class("a", "b")
    assert merged.names == ("b",)
    assert merged.counts() == {"b": 2}
    assert made.without_class("a").counts() == {"b": 1}
    assert made.rename_class("a", "a") == made


def test_a_key_belongs_to_one_class() -> None:
    made = two()
    assert [one.key for one in made.classes] == [1, 2]
    taken = made.with_class(LabelClass("c", "#123456", 1))
    assert [one.key for one in taken.classes] == [None, 2, 1]
    assert len({one.color for one in LabelSet().with_names("abcdefghi").classes}) == 9


def test_labels_of_unknown_classes_are_refused() -> None:
    with pytest.raises(LabelError, match="does not exist: c"):
        two().with_labels([label(0, "c")])
    with pytest.raises(LabelError, match="two classes called a"):
        LabelSet((LabelClass("a", "#000000"), LabelClass("a", "#ffffff")))


def test_labels_of_rows_cover_one_step_of_the_lattice() -> None:
    (one,) = labels_of_rows(make_grid(step=154.3), [17], "a", source="lasso")
    # Row 1, column 2: the corner is rounded as the grid rounds it.
    assert (one.x, one.y, one.width, one.height) == (309, 154, 154, 154)
    assert one.source == "lasso"
    assert one.made_at.startswith("20")


def test_a_file_gives_back_what_was_written(tmp_path) -> None:
    made = two().with_slide_name("s", "Schnitt ä")
    path = write_labels(tmp_path / "x.labels.json", made)
    assert read_labels(path) == made


def test_a_file_that_another_program_changed_is_not_overwritten(tmp_path) -> None:
    path = write_labels(tmp_path / "x.labels.json", two())
    stamp = stamp_of(path)
    write_labels(path, two(), stamp)
    with pytest.raises(LabelError, match="was changed by another program"):
        write_labels(path, LabelSet(), stamp)
    assert len(read_labels(path)) == 2


def test_opinions_merge_by_majority_and_ties_are_left_out() -> None:
    def person(author: str, *names: str) -> LabelSet:
        labels = [label(10 * i, n, author, author) for i, n in enumerate(names) if n]
        return LabelSet().with_names("abc").with_labels(labels)

    sets = [person("1", "a", "a", "a", ""), person("2", "a", "b", "b", "c")]
    sets.append(person("3", "a", "b", "c", ""))
    merged, disagreements = merge_labels(sets)
    assert [(one.x, one.label, one.author) for one in merged.labels] == [
        (30, "c", "2"),
        (0, "a", "3"),
        (10, "b", "3"),
    ]
    assert [(one.place[1], one.chosen) for one in disagreements] == [
        (10, "b"),
        (20, ""),
    ]
    assert [one.author for one in disagreements[1].labels] == ["1", "2", "3"]
