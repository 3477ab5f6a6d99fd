"""The mil verbs, as a person calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.core.mil.conftest import write_cohort

SMALL = (
    *("--hidden", "16", "--width", "8", "--lr", "0.01", "--epochs", "8"),
    *("--min-epochs", "4", "--resamples", "20", "--folds", "3", "--device", "cpu"),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


def test_train_predict_look(
    call: Call, files: tuple[Path, Path], tmp_path: Path
) -> None:
    table, features = files
    out = tmp_path / "run"
    answer = call(
        *("mil", "train", table, "--features", features, "--model", "abmil"),
        *("--out", out, *SMALL),
    )
    assert answer.status == 0
    lines = answer.out.splitlines()
    (auroc,) = [line for line in lines if line.startswith("auroc")]
    assert "0.500" in auroc and " to " in auroc
    predicted = call("mil", "predict", out, "--features", features, "--json").json
    assert predicted["models"] == 3 and len(predicted["predictions"]) == 24
    maps = call(
        *("mil", "attention", out, "--slide", "s02", "--features", features),
        *("--out", tmp_path / "maps", "--scaling", "minmax", "--json"),
    ).json
    assert maps["class"] == "tumour"
    assert {Path(f).name for f in maps["files"]} >= {"attention.png", "patches.csv"}
    again = call("mil", "train", table, "--features", features, "--out", out, *SMALL)
    assert again.status == 1 and "--resume" in again.error
    resumed = call("mil", "train", "--resume", out, "--json")
    assert resumed.json["pooled"]["slides"] == 24
    wrong = call("mil", "train", "--resume", out, "--folds", "4")
    assert wrong.status == 2 and "takes no other options" in wrong.error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "--out", "x"), "no cohort given"),
        (("train", "nowhere.csv", "--features", ".", "--out", "x"), "cannot be read"),
        (("predict",), "a run and --features"),
        (("attention", "run"), "--slide: is missing"),
        (("compare", "a", "--cohort", "c.csv", "--out", "x"), "two or more"),
        (("train", "--model", "abml"), "--model"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(call: Call, words: tuple, says: str) -> None:
    answer = call("mil", *words)
    assert answer.status == 2
    assert says in answer.error
