"""Options of a command from the fields of its pydantic model, and back.

Nested models become groups of options; names are unique over a model. Texts on the
line go to pydantic as they are, so that one place decides what is valid, and only what
was given on the line overrides what ``--config`` says.
"""

from __future__ import annotations

import argparse
import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from napari_mcm.cli.output import say
from napari_mcm.core.errors import ConfigError

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Option:
    """One leaf of a model.

    Attributes
    ----------
    path : tuple of str
        Field names from the task's model down: ``("grid", "patch_size")``.
    field : FieldInfo
        Its type, default, bounds and description.
    group : str
        What its model says of itself; empty at the top.
    """

    path: tuple[str, ...]
    field: FieldInfo
    group: str = ""

    @property
    def flag(self) -> str:
        """The option's name on the line: ``--patch-size``."""
        return "--" + self.path[-1].replace("_", "-")

    @property
    def positional_name(self) -> str:
        """What stands for it in the usage where it has no flag: ``SLIDE``."""
        name = self.path[-1].upper()
        return name.removesuffix("S") if self.many else name

    @property
    def kind(self) -> Any:
        """Its type without None and annotations; a union where there is one."""
        kinds = [k for k in _alternatives(self.field.annotation) if k is not type(None)]
        return kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007

    @property
    def optional(self) -> bool:
        """Whether it may be none."""
        return type(None) in _alternatives(self.field.annotation)

    @property
    def many(self) -> bool:
        """Whether it takes any number of values."""
        return get_origin(self.kind) is tuple and get_args(self.kind)[-1] is ...

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        return _metavar(get_args(self.kind)[0] if self.many else self.kind)

    @property
    def described(self) -> str:
        """What it is, with its unit."""
        return (self.field.description or "").rstrip(".")

    @property
    def shown_default(self) -> str:
        """Its default as a person would write it; empty where there is none."""
        default = self.field.get_default()
        if default in (PydanticUndefined, None, (), ""):
            return ""
        if isinstance(default, bool):
            return "yes" if default else "no"
        return f"{default:g}" if isinstance(default, float) else str(default)

    @property
    def help(self) -> str:
        """Its description with the default."""
        default = self.shown_default
        return f"{self.described} (default: {default})" if default else self.described


def walk(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Option]:
    """Give every option of a model, those of nested models after its own."""
    nested = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(
            field.annotation, BaseModel
        ):
            nested.append((name, field.annotation))
            continue
        group = (model.__doc__ or "").strip().split("\n")[0].rstrip(".") if path else ""
        yield Option((*path, name), field, group)
    for name, inner in nested:
        yield from walk(inner, (*path, name))


def add_options(
    parser: argparse.ArgumentParser, model: type[BaseModel], positional: str = ""
) -> None:
    """Give a parser an option for each field of a model, ``--config`` and ``--json``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of the verb.
    model : type of BaseModel
        All options of the verb.
    positional : str
        The field that is given without a name.
    """
    parser.usage = "%(prog)s [OPTIONS]"
    groups: dict[str, Any] = {"": parser}
    for option in walk(model):
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        if option.path == (positional,):
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
    """Build the configuration: defaults, then ``--config``, then the line.

    Raises
    ------
    ConfigError
        If a value is not allowed, naming its option.
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
    # None at all is fine for the parser: --config may name them.
    name = option.positional_name
    dots = " ..." if option.many else ""
    parser.usage = f"%(prog)s {name}{dots} [OPTIONS]"
    parser.set_defaults(positional=option.path[-1])
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
        # Several values after one name would swallow what is given without a name.
        settings |= (
            {"action": "extend", "nargs": "+"} if greedy else {"action": "append"}
        )
    group.add_argument(option.flag, **settings)


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
    # A run of another verb shares its grid, say, but not all it has.
    strange = sorted(set(content) - set(model.model_fields))
    if strange:
        say(f"note: {name}: no options of this verb, left out: {', '.join(strange)}")
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
    """Take ``X,Y`` apart where a pair is wanted."""
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
    name = option.positional_name if option.path == (positional,) else option.flag
    if first["type"] == "missing":
        return ConfigError("is missing", name)
    # A union has one message for each of its types.
    related = [e for e in error.errors() if e["loc"][: len(option.path)] == option.path]
    reasons = " or ".join(dict.fromkeys(e["msg"] for e in related))
    return ConfigError(f"{reasons}, not {first['input']!r}", name)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(k for part in get_args(kind) for k in _alternatives(part))
    return (kind,)


def _metavar(kind: Any) -> str:
    return "|".join(_metavar_one(k) for k in _alternatives(kind))


def _metavar_one(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return "X,Y"
    return {int: "N", float: "NUMBER", Path: "PATH"}.get(kind, "NAME")


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
