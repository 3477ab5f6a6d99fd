"""The options of a task: the leaves of its pydantic model.

The command line builds its options from them, the viewer its forms, the docs their
tables.
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
        First line of its model's docstring; empty for the task's own model.
    default : object
        Its default value. A task may override the model's own.
    """

    path: tuple[str, ...]
    field: FieldInfo
    group: str = ""
    default: Any = PydanticUndefined

    @property
    def flag(self) -> str:
        """The option's flag on the command line: ``--patch-size``.

        A field whose name does not make a good flag names one itself, as ``"flag"`` in
        its ``json_schema_extra``. Configuration files keep the field's name.

        Returns
        -------
        str
        """
        extra = self.field.json_schema_extra
        named = extra.get("flag") if isinstance(extra, dict) else None
        return f"--{named}" if named else self.former_flag

    @property
    def former_flag(self) -> str:
        """The flag after the field's name, which commands of earlier versions use.

        Returns
        -------
        str
        """
        return "--" + self.path[-1].replace("_", "-")

    @property
    def positional_name(self) -> str:
        """The placeholder in the usage line where it has no flag: ``SLIDE``.

        Returns
        -------
        str
        """
        name = self.path[-1].upper()
        return name.removesuffix("S") if self.many else name

    def is_among(self, names: str) -> bool:
        """Return whether this is one of a verb's options without a flag.

        Parameters
        ----------
        names : str
            Names of options of the task's own model, separated by spaces.

        Returns
        -------
        bool
        """
        return len(self.path) == 1 and self.path[0] in names.split()

    @property
    def name(self) -> str:
        """The dotted path: ``grid.patch_size``.

        Returns
        -------
        str
        """
        return ".".join(self.path)

    @property
    def kind(self) -> Any:
        """The type without None and annotations.

        Returns
        -------
        type
            A union where there are several.
        """
        kinds = [k for k in _alternatives(self.field.annotation) if k is not type(None)]
        return kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007

    @property
    def optional(self) -> bool:
        """Whether the value may be None.

        Returns
        -------
        bool
        """
        return type(None) in _alternatives(self.field.annotation)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The allowed values, where the type is a `Literal`.

        Returns
        -------
        tuple
            Empty for other types.
        """
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def many(self) -> bool:
        """Whether it takes any number of values.

        Returns
        -------
        bool
        """
        return get_origin(self.kind) is tuple and get_args(self.kind)[-1] is ...

    @property
    def metavar(self) -> str:
        """The placeholder for its value in the help: ``N``, ``PATH``.

        Returns
        -------
        str
        """
        return _metavar(get_args(self.kind)[0] if self.many else self.kind)

    @property
    def described(self) -> str:
        """The description, with its unit and without a final full stop.

        Returns
        -------
        str
        """
        return (self.field.description or "").rstrip(".")

    @property
    def shown_default(self) -> str:
        """The default as a user would write it.

        Returns
        -------
        str
            Empty where there is none.
        """
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
        """The description followed by the default.

        Returns
        -------
        str
        """
        default = self.shown_default
        return f"{self.described} (default: {default})" if default else self.described


def walk(
    model: type[BaseModel], path: tuple[str, ...] = (), usual: Any = None
) -> Iterator[Option]:
    """Yield every option of a model; those of nested models come last.

    Parameters
    ----------
    model : type of BaseModel
        The task's model, or a nested one.
    path : tuple of str, optional
        Field names from the task's model to this one.
    usual : BaseModel, optional
        The value of this model by default; fields set in it override the model's
        own defaults.

    Yields
    ------
    Option
        In the order of the fields.
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
