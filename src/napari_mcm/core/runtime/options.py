"""The options of a task: the leaves of its pydantic model.

The command line makes its options of them, the viewer its forms, the docs their tables.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


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
    default : object
        What it is unless it is given; a task may have another than the model's own.
    """

    path: tuple[str, ...]
    field: FieldInfo
    group: str = ""
    default: Any = PydanticUndefined

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
    def name(self) -> str:
        """Its name with the groups it belongs to: ``grid.patch_size``."""
        return ".".join(self.path)

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
    def choices(self) -> tuple[Any, ...]:
        """What it can be, where it is one of a few words; empty where it is not."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

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
        default = self.default
        if default in (PydanticUndefined, None, (), ""):
            return ""
        if isinstance(default, bool):
            return "yes" if default else "no"
        if isinstance(default, tuple):
            return (" " if self.many else ",").join(map(_shown, default))
        return _shown(default)

    @property
    def help(self) -> str:
        """Its description with the default."""
        default = self.shown_default
        return f"{self.described} (default: {default})" if default else self.described


def walk(
    model: type[BaseModel], path: tuple[str, ...] = (), usual: Any = None
) -> Iterator[Option]:
    """Give every option of a model, those of nested models after its own.

    Parameters
    ----------
    model : type of BaseModel
        The task's.
    path : tuple of str
        Where it stands in the task's.
    usual : BaseModel, optional
        What stands there by default; what was set in it wins over the model's own.
    """
    nested = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(
            field.annotation, BaseModel
        ):
            nested.append((name, field.annotation, field.get_default()))
            continue
        group = (model.__doc__ or "").strip().split("\n")[0].rstrip(".") if path else ""
        own = isinstance(usual, BaseModel) and name in usual.model_fields_set
        default = getattr(usual, name) if own else field.get_default()
        yield Option((*path, name), field, group, default)
    for name, inner, there in nested:
        yield from walk(inner, (*path, name), there)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


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
