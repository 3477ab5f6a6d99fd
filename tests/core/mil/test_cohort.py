"""Tables of slides, as people write them, and how they are parted."""

from __future__ import annotations

import pytest

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mil.cohort import read_cohort, slide_key
from napari_mcm.core.mil.config import SplitConfig
from napari_mcm.core.mil.splits import make_folds


@pytest.fixture
def table(tmp_path):
    def write(text: str):
        path = tmp_path / "cohort.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def many(slides: int = 40, per_patient: int = 2) -> str:
    lines = ["slide,label,patient"]
    for i in range(slides):
        patient = i // per_patient
        lines.append(f"s{i},{'ab'[patient % 3 == 0]},p{patient}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "header",
    ["slide,label,patient", "Slide_ID,Label,Case ID", "filename,class,case_id"],
)
def test_columns_are_found_by_their_usual_names(table, header):
    cohort = read_cohort(table(f"\ufeff{header}\nx/A.svs,1,p\nB.ome.tif,0,q\n"))
    assert [(c.slide, c.label, c.patient) for c in cohort.cases] == [
        ("A", "1", "p"),
        ("B", "0", "q"),
    ]
    assert cohort.classes == ["0", "1"] and cohort.has_patients


def test_classes_that_are_numbers_are_in_their_order(table):
    text = "slide,label\n" + "\n".join(f"s{i},{i}" for i in (10, 9, 2))
    assert read_cohort(table(text)).classes == ["2", "9", "10"]


def test_without_patients_each_slide_is_its_own(table):
    cohort = read_cohort(table("slide,label\nA,1\nB,0\n"))
    assert [c.patient for c in cohort.cases] == ["A", "B"]
    assert not cohort.has_patients


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slide,grade\nA,1\n", "column of labels"),
        ("label\n1\n", "column of slides"),
        ("slide,label\nA,1\nA.svs,0\n", "A twice"),
        ("slide,label\nA,1\nB,\n", "no label for slide B"),
        ("slide,label\nA,1\n,0\n", "line 3"),
        ("slide,label\nA,1\nB,1\n", "one label only"),
        ("slide,label\n", "no slides"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(table, text, says):
    with pytest.raises(ConfigError, match=says):
        read_cohort(table(text))


def test_names_lose_folders_and_endings_of_slides_only():
    assert slide_key("a/b/TCGA-1.2.svs") == "TCGA-1.2"
    assert slide_key("x.ome.tif") == "x"
    assert slide_key("case.v2") == "case.v2"


def test_no_patient_is_on_two_sides_and_every_slide_is_tested_once(table):
    cohort = read_cohort(table(many()))
    folds = make_folds(cohort, SplitConfig(folds=4))
    patient = {c.slide: c.patient for c in cohort.cases}
    label = {c.slide: c.label for c in cohort.cases}
    assert sorted(s for f in folds for s in f.test) == sorted(patient)
    for fold in folds:
        parts = [fold.train, fold.validation, fold.test]
        assert sorted(s for p in parts for s in p) == sorted(patient)
        people = [{patient[s] for s in part} for part in parts]
        assert not (
            people[0] & people[1] | people[0] & people[2] | people[1] & people[2]
        )
        # A third of the patients is of class b.
        share = sum(label[s] == "b" for s in fold.test) / len(fold.test)
        assert 0.2 <= share <= 0.5


def test_folds_depend_on_their_seed_only(table):
    cohort = read_cohort(table(many()))
    one = make_folds(cohort, SplitConfig(folds=4))
    assert one == make_folds(cohort, SplitConfig(folds=4))
    assert one != make_folds(cohort, SplitConfig(folds=4, split_seed=1))


def test_too_few_patients_for_the_folds(table):
    text = "slide,label\n" + "\n".join(f"s{i},{int(i < 3)}" for i in range(20))
    with pytest.raises(ConfigError, match="--folds 3"):
        make_folds(read_cohort(table(text)), SplitConfig(folds=5))


def test_one_patient_of_a_class_cannot_be_parted(table):
    cohort = read_cohort(table("slide,label,patient\nA,1,p\nB,0,q\nC,0,r\n"))
    with pytest.raises(ConfigError) as raised:
        make_folds(cohort, SplitConfig(folds=2))
    assert raised.value.hint == "Each class needs slides of at least two patients"


def test_a_given_split_is_kept(table):
    text = "slide,label,patient,split\n" + "\n".join(
        f"s{i},{i % 2},p{i},{('train', 'train', 'train', 'val', 'Test')[i // 2 % 5]}"
        for i in range(20)
    )
    cohort = read_cohort(table(text))
    (fold,) = make_folds(cohort, SplitConfig())
    named = {c.slide: c.split for c in cohort.cases}
    assert {named[s] for s in fold.validation} == {"val"}
    assert {named[s] for s in fold.test} == {"test"}
    assert len(fold.train) == 12


def test_a_given_split_without_validation_gets_one(table):
    text = "slide,label,patient,split\n" + "\n".join(
        f"s{i},{i % 2},p{i},{'test' if i < 4 else 'train'}" for i in range(24)
    )
    (fold,) = make_folds(read_cohort(table(text)), SplitConfig(validation=0.25))
    assert len(fold.validation) == 5 and len(fold.test) == 4


def test_given_folds_are_the_tests(table):
    text = "slide,label,patient,fold\n" + "\n".join(
        f"s{i},{i % 2},p{i},{i // 2 % 3}" for i in range(30)
    )
    cohort = read_cohort(table(text))
    folds = make_folds(cohort, SplitConfig())
    assert [f.name for f in folds] == ["0", "1", "2"]
    for fold in folds:
        given = {c.slide for c in cohort.cases if c.fold == fold.name}
        assert set(fold.test) == given


@pytest.mark.parametrize("column", ["split", "fold"])
def test_leakage_names_the_patient(table, column):
    where = {"split": ("train", "test"), "fold": ("0", "1")}[column]
    lines = [f"slide,label,patient,{column}"]
    lines += [f"s{i},{i % 2},p{i},{where[i // 2 % 2]}" for i in range(12)]
    lines += [f"x,0,Smith,{where[0]}", f"y,0,Smith,{where[1]}"]
    with pytest.raises(ConfigError, match="patient Smith"):
        make_folds(read_cohort(table("\n".join(lines))), SplitConfig())


def test_an_unknown_part_is_named(table):
    with pytest.raises(ConfigError, match="holdout"):
        text = "slide,label,split\nA,1,train\nB,0,holdout\n"
        make_folds(read_cohort(table(text)), SplitConfig())


def test_a_fold_must_have_every_class_to_learn_from(table):
    text = "slide,label,patient,split\n" + "\n".join(
        f"s{i},{int(i < 4)},p{i},{'test' if i < 4 else 'train'}" for i in range(24)
    )
    with pytest.raises(ConfigError, match="no training slide of class 1"):
        make_folds(read_cohort(table(text)), SplitConfig())
