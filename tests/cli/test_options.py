"""Options from models, and models from options."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.cli.app import VERBS, load_verb
from napari_mcm.cli.options import add_options, read_config
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.runtime.command import Command
from napari_mcm.core.runtime.options import walk


class Inner(BaseModel):
    """What lies within."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int | None = Field(8, ge=1, description="Width in px.")
    rate: float = Field(0.5, gt=0, description="Rate, 50 % at most.")


class Task(BaseModel):
    """All kinds of fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    slides: tuple[Path, ...] = ()
    at: tuple[float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    chunk: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    kind: Literal["a", "b"] = "a"
    fast: bool = False
    name: str = "x"
    inner: Inner = Inner()
    grid: GridConfig = GridConfig()


def parse(*words: str) -> Task:
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    add_options(parser, Task, positional="slides")
    return read_config(parser.parse_args(words), Task)


def test_nothing_given_is_the_defaults() -> None:
    assert parse() == Task()
    assert parse().model_fields_set == set()


def test_every_kind_of_option() -> None:
    task = parse(
        *("a.svs", "b.svs", "--at", "10,20.5", "--points", "1,2", "--points", "3,4"),
        *("--chunk", "3", "--kind", "b", "--fast", "--name", "7", "--width", "none"),
        *("--rate", "0.25", "--mpp", "auto", "--patch-size", "96"),
    )
    assert task == Task(
        slides=(Path("a.svs"), Path("b.svs")),
        at=(10, 20.5),
        points=((1, 2), (3, 4)),
        chunk=3,
        kind="b",
        fast=True,
        name="7",
        inner=Inner(width=None, rate=0.25),
        grid=GridConfig(mpp="auto", patch_size=96),
    )


def test_the_line_overrides_the_file_and_leaves_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    before = Task(fast=True, grid=GridConfig(mpp=1.0, patch_size=64), chunk=5)
    file.write_text(before.model_dump_json())
    after = parse("--config", str(file), "--no-fast", "--patch-size", "128")
    assert after.fast is False
    assert after.grid == GridConfig(mpp=1.0, patch_size=128)
    assert after.chunk == 5


def test_a_configuration_comes_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    before = parse("a.svs", "--at", "1,2", "--points", "5,6", "--rate", "0.125")
    file.write_text(before.model_dump_json())
    assert parse("--config", str(file)) == before


def test_options_of_another_verb_are_ignored_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"name": "kept", "student": "resnet18"}))
    assert parse("--config", str(file)).name == "kept"
    assert "ignored: student" in capsys.readouterr().err


def test_a_slip_within_a_group_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"grid": {"patchsize": 3}}))
    with pytest.raises(ConfigError, match=r"grid\.patchsize"):
        parse("--config", str(file))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "0"], "--rate: Input should be greater than 0, not '0'"),
        (["--chunk", "0"], "--chunk: .* or Input should be 'auto'"),
        (["--at", "1"], "--at: "),
        (["--kind", "c"], "--kind: Input should be 'a' or 'b'"),
    ],
)
def test_a_wrong_value_names_its_option(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(*words)
    assert caught.value.exit_code == 2


def test_the_help_shows_units_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr().out
    assert "Width in px (default: 8)" in shown
    assert "Rate, 50 % at most (default: 0.5)" in shown
    assert "What lies within:" in shown
    assert "--mpp NUMBER|auto" in shown


@pytest.mark.parametrize("verb", VERBS)
def test_names_are_unique_and_described(verb: str) -> None:
    options = list(walk(load_verb(verb).OPTIONS))
    names = [option.path[-1] for option in options]
    assert len(names) == len(set(names))
    assert not {"config", "json", "help", "positional"} & set(names)
    for option in options:
        assert option.field.description, option.flag


@pytest.mark.parametrize("verb", VERBS)
def test_the_default_shown_is_the_one_in_effect(verb: str) -> None:
    model = load_verb(verb).OPTIONS
    # Without validation, as some need a file to be named.
    unasked = model.model_construct()
    for option in walk(model):
        there: object = unasked
        for name in option.path:
            there = getattr(there, name, None)
        if not option.field.is_required() and option.field.default_factory is None:
            assert option.default == there, option.name


class Renamed(BaseModel):
    """A task with an option whose flag is not its field's name."""

    model_config = ConfigDict(extra="forbid")

    kept_as: str = Field(
        "float32",
        description="Number format.",
        json_schema_extra={"flag": "cache-dtype"},
    )
    beside: bool = Field(
        False, description="Keep both.", json_schema_extra={"flag": "keep-both"}
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--cache-dtype", "float16", "--keep-both"),
        ("--kept-as", "float16", "--beside"),
    ],
)
def test_a_flag_of_an_earlier_version_keeps_working(words: tuple[str, ...]) -> None:
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    add_options(parser, Renamed)
    task = read_config(parser.parse_args([*words]), Renamed)
    assert task == Renamed(kept_as="float16", beside=True)
    assert task.model_dump() == {"kept_as": "float16", "beside": True}
    shown = parser.format_help()
    assert "--cache-dtype" in shown and "--keep-both" in shown
    assert "--kept-as" not in shown and "--beside" not in shown


def test_a_command_is_copied_with_the_flags_of_today() -> None:
    line = Command("demo", Renamed(kept_as="float16", beside=True)).line
    assert "--cache-dtype float16" in line and "--keep-both" in line
