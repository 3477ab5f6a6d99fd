"""What would stop a training is said before it starts, in the words of the form."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mil.cohort import read_cohort
from napari_mcm.core.mil.config import SplitConfig
from napari_mcm.core.mil.splits import make_folds
from napari_mcm.viewer.mil.checks import check_cohort, label_problem


def write_table(
    path: Path, rows: list[str], header: str = "slide,label,patient"
) -> Path:
    table = path / "cohort.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    return table


def slides_of(**patients: int) -> list[str]:
    """Two slides of each of some patients per label."""
    return [
        f"{label}{n}{part},{label},{label}{n}"
        for label, count in patients.items()
        for n in range(count)
        for part in "xy"
    ]


def check(
    table: Path, folds: int = 3, features: Path | None = None, allow: bool = False
):
    return check_cohort(table, features, folds, allow)


def test_enough_patients_are_no_problem(tmp_path: Path) -> None:
    table = write_table(tmp_path, slides_of(a=3, b=5))
    found = check(table)
    assert not found.problem and found.text == "16 slides of 8 patients: 6 a, 10 b."


def test_too_few_patients_for_the_folds_are_named(tmp_path: Path) -> None:
    table = write_table(tmp_path, slides_of(tumour=4, normal=9))
    assert check(table, 4).problem == ""
    problem = check(table, 5).problem
    assert problem.startswith("Label tumour has 4 patients, too few for 5 folds")
    assert "set Folds to 4 or less" in problem


@pytest.mark.parametrize("counts", [(1, 4), (2, 5), (3, 3), (4, 2), (6, 6)])
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_what_the_engine_refuses_is_said_here(
    tmp_path: Path, counts: tuple[int, int], folds: int
) -> None:
    table = write_table(tmp_path, slides_of(a=counts[0], b=counts[1]))
    cohort = read_cohort(table)
    if label_problem(cohort, folds):
        with pytest.raises(Exception, match="has a class with|at least two"):
            make_folds(cohort, SplitConfig(folds=folds))
    else:
        assert min(counts) >= folds


def test_one_label_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one label only"):
        check(write_table(tmp_path, slides_of(a=8)))
    cohort = read_cohort(write_table(tmp_path, slides_of(a=2, b=1)))
    left = cohort.without(["b0x", "b0y"])
    assert "label a: a classifier needs slides of two labels" in label_problem(left, 2)


def test_one_patient_of_a_label_is_not_enough(tmp_path: Path) -> None:
    problem = check(write_table(tmp_path, slides_of(a=8, b=1))).problem
    assert "Label b has one patient only" in problem


def test_parts_of_the_table_need_no_count_but_keep_patients_apart(
    tmp_path: Path,
) -> None:
    header = "slide,label,patient,split"
    rows = ["s1,a,p,train", "s2,b,q,train", "s3,a,r,test", "s4,b,s,test"]
    assert not check(write_table(tmp_path, rows, header), 5).problem
    rows[2] = "s3,a,p,test"
    assert (
        "Patient p is in test and train"
        in check(write_table(tmp_path, rows, header), 5).problem
    )


def test_slides_without_features_are_named(tmp_path: Path) -> None:
    features = tmp_path / "features"
    features.mkdir()
    table = write_table(tmp_path, slides_of(a=3, b=3))
    names = [row.split(",")[0] for row in slides_of(a=3, b=3)]
    for name in names:
        (features / f"{name}.h5").touch()
    assert not check(table, 3, features).problem
    for name in names[:2]:
        (features / f"{name}.h5").unlink()
    problem = check(table, 3, features).problem
    assert problem.startswith("2 slides have no features (a0x, a0y)")
    assert "tick Skip slides without features" in problem
    # Without them, a patient less is left.
    assert "Label a has 2 patients" in check(table, 3, features, allow=True).problem
    assert not check(table, 2, features, allow=True).problem
