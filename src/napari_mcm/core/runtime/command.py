"""A task as a command line and as a ``config.json`` file.

The viewer's forms end in a model of options, and ``napari-mcm`` parses its command line
into the same model. So a task that was set up in the viewer can run on a machine
without a display.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from napari_mcm.core.runtime.files import write_json
from napari_mcm.core.runtime.options import Option, walk

PROGRAM = "napari-mcm"


@dataclass(frozen=True)
class Command:
    """A verb of the command line with all its options.

    Attributes
    ----------
    verb : str
        One word or two: ``mil train``.
    config : BaseModel
        The verb's options.
    positional : str
        Name of the option that the verb takes without a flag; empty for none. Two are
        separated by a space.
    """

    verb: str
    config: BaseModel
    positional: str = ""

    @property
    def words(self) -> list[str]:
        """The program, the verb and all options that differ from their defaults.

        Returns
        -------
        list of str
            One argument each, not quoted.
        """
        defaults = _defaults(self.config)
        named: list[str] = []
        unnamed: list[str] = []
        for option in walk(type(self.config)):
            value = _value(self.config, option)
            if value == _value(defaults, option):
                continue
            if option.is_among(self.positional):
                unnamed += [_bare(text) for text in _texts(option, value)]
            else:
                named += list(_named(option, value, greedy=not self.positional))
        return [PROGRAM, *self.verb.split(), *unnamed, *named]

    @property
    def line(self) -> str:
        """The command as one line, quoted for this system's shell.

        Returns
        -------
        str
        """
        if os.name == "nt":
            return subprocess.list2cmdline(self.words)
        return shlex.join(self.words)

    def save(self, path: Path) -> None:
        """Write all options to a file that ``--config`` accepts.

        Parameters
        ----------
        path : Path
            The JSON file.

        Raises
        ------
        McmError
            If it cannot be written.
        """
        write_json(path, self.config.model_dump(mode="json"))


def _defaults(config: BaseModel) -> BaseModel:
    """Return the options of a command without arguments, or with a preset only."""
    preset = getattr(config, "preset", None)
    if any(field.is_required() for field in type(config).model_fields.values()):
        # Required options have no default.
        return type(config).model_construct()
    if preset is None:
        return type(config)()
    return type(config)(preset=preset).model_copy(update={"preset": None})


def _value(config: BaseModel, option: Option) -> Any:
    value: Any = config
    for name in option.path:
        value = getattr(value, name, PydanticUndefined)
    return value


def _named(option: Option, value: Any, greedy: bool) -> Iterator[str]:
    if option.kind is bool:
        yield option.flag if value else f"--no-{option.flag.removeprefix('--')}"
        return
    texts = _texts(option, value)
    if option.many and greedy:
        yield from (option.flag, *map(_bare, texts))
        return
    for text in texts:
        # A value that begins with a dash would be parsed as an option.
        yield from (
            [f"{option.flag}={text}"] if text.startswith("-") else (option.flag, text)
        )


def _texts(option: Option, value: Any) -> list[str]:
    return [_text(item) for item in (value if option.many else (value,))]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return repr(value) if isinstance(value, float) else str(value)


def _bare(text: str) -> str:
    """Return a path in a form that is not parsed as an option."""
    return f"./{text}" if text.startswith("-") else text
