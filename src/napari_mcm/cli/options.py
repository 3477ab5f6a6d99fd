"""Converts the fields of pydantic models to command-line options, and back.

Nested models become groups of options; the name of each option is unique. Text from the
command line goes to pydantic unchanged: only the models validate values. Options on the
command line override those of ``--config``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from napari_mcm.cli.output import say
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.runtime.options import Option, walk

_Model = TypeVar("_Model", bound=BaseModel)


def add_options(
    parser: argparse.ArgumentParser, model: type[BaseModel], positional: str = ""
) -> None:
    """Add an option for each field of a model, ``--config`` and ``--json``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the verb.
    model : type of BaseModel
        Model of all options of the verb.
    positional : str
        Name of the option whose value is given without a flag; empty if there is none.
        Of two, separated by a space, the first takes one value.
    """
    parser.usage = "%(prog)s [OPTIONS]"
    parser.set_defaults(positional=positional)
    groups: dict[str, Any] = {"": parser}
    for option in walk(model):
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        if option.is_among(positional):
            _add_positional(parser, option)
        else:
            _add_option(groups[option.group], option, greedy=not positional)
    parser.add_argument(
        "--config", metavar="FILE", help="config.json of an earlier run to start from"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object as the last line of standard output",
    )


def read_config(arguments: argparse.Namespace, model: type[_Model]) -> _Model:
    """Build the configuration from defaults, ``--config`` and the command line.

    Parameters
    ----------
    arguments : argparse.Namespace
        Parsed arguments, without options that were not given.
    model : type of BaseModel
        Model of all options of the verb.

    Raises
    ------
    ConfigError
        If a value is not allowed; the message names its option.
    """
    options = list(walk(model))
    content = _read_file(arguments, model)
    for option in options:
        given = getattr(arguments, option.path[-1], PydanticUndefined)
        if given is not PydanticUndefined:
            _put(content, option.path, _split(option, given))
    try:
        return model.model_validate(content)
    except ValidationError as error:
        positional = getattr(arguments, "positional", "")
        raise _explain(error, options, positional) from None


def _add_positional(parser: argparse.ArgumentParser, option: Option) -> None:
    # Optional for the parser, because --config may give the value.
    name = option.positional_name
    dots = " ..." if option.many else ""
    before = (parser.usage or "").removesuffix("[OPTIONS]")
    parser.usage = f"{before}{name}{dots} [OPTIONS]"
    parser.add_argument(
        option.path[-1],
        nargs="*" if option.many else "?",
        metavar=name,
        help=_escaped(option.help),
    )


def _add_option(group: Any, option: Option, greedy: bool) -> None:
    settings: dict[str, Any] = {"dest": option.path[-1], "help": _escaped(option.help)}
    if option.kind is bool:
        settings["action"] = argparse.BooleanOptionalAction
    else:
        settings["metavar"] = option.metavar
    if option.many:
        # With positional values, one flag takes one value: it would take them, too.
        settings |= (
            {"action": "extend", "nargs": "+"} if greedy else {"action": "append"}
        )
    group.add_argument(option.flag, **settings)
    if option.flag != option.former_flag:
        # Commands that were written for an earlier version keep working.
        settings["help"] = argparse.SUPPRESS
        group.add_argument(option.former_flag, **settings)


def _read_file(arguments: argparse.Namespace, model: type[BaseModel]) -> dict[str, Any]:
    name = getattr(arguments, "config", None)
    if name is None:
        return {}
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read as JSON ({error})", name) from None
    if not isinstance(content, dict):
        raise ConfigError("holds no configuration", name)
    # A configuration of another verb may have only some of these options.
    strange = sorted(set(content) - set(model.model_fields))
    if strange:
        say(f"note: {name}: not options of this verb, ignored: {', '.join(strange)}")
    return {key: value for key, value in content.items() if key not in strange}


def _put(content: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        inner = content.get(name)
        content[name] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        content = inner
    content[path[-1]] = value


def _split(option: Option, given: Any) -> Any:
    if isinstance(given, list):
        return [_split_one(get_args(option.kind)[0], text) for text in given]
    if option.optional and given == "none":
        return None
    return _split_one(option.kind, given)


def _split_one(kind: Any, text: Any) -> Any:
    """Split ``X,Y`` if the option takes a pair, else return the text unchanged."""
    return text.split(",") if get_origin(kind) is tuple else text


def _explain(
    error: ValidationError, options: list[Option], positional: str
) -> ConfigError:
    first = error.errors()[0]
    for option in options:
        if first["loc"][: len(option.path)] == option.path:
            break
    else:
        name = ".".join(map(str, first["loc"]))
        return ConfigError(f"{name}: {first['msg']}", "configuration")
    name = option.positional_name if option.is_among(positional) else option.flag
    if first["type"] == "missing":
        return ConfigError("is missing", name)
    # pydantic reports one error per type of a union.
    related = [e for e in error.errors() if e["loc"][: len(option.path)] == option.path]
    reasons = " or ".join(dict.fromkeys(e["msg"] for e in related))
    return ConfigError(f"{reasons}, not {first['input']!r}", name)


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
