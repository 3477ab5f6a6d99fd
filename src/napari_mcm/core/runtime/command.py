"""A task as the line that does it on the command line, and as its ``config.json``.

The viewer's forms end in a model of options; ``napari-mcm`` reads the same model from its
line. So what was set up in a window can be run on a machine without one.
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
        Of one word or two: ``mil train``.
    config : BaseModel
        The verb's options.
    positional : str
        The option that is given without a name, as the verb has it; empty for none.
    """

    verb: str
    config: BaseModel
    positional: str = ""

    @property
    def words(self) -> list[str]:
        """The program, the verb and all options that differ from their defaults."""
        usual = _usual(self.config)
        named, unnamed = [], []
        for option in walk(type(self.config)):
            value = _value(self.config, option)
            if value == _value(usual, option):
                continue
            if option.path == (self.positional,):
                unnamed = [_bare(text) for text in _texts(option, value)]
            else:
                named += list(_named(option, value, greedy=not self.positional))
        return [PROGRAM, *self.verb.split(), *unnamed, *named]

    @property
    def line(self) -> str:
        """The same in one line, quoted for this system's shell."""
        if os.name == "nt":
            return subprocess.list2cmdline(self.words)
        return shlex.join(self.words)

    def save(self, path: Path) -> None:
        """Write every option to a file that ``--config`` takes.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_json(path, self.config.model_dump(mode="json"))


def _usual(config: BaseModel) -> BaseModel:
    """Give what an empty line means; under a preset, a line that only names it."""
    preset = getattr(config, "preset", None)
    if any(field.is_required() for field in type(config).model_fields.values()):
        # What must be given has no usual value.
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
        # A value that begins as an option does would be taken for one.
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
    """Write a path so that it cannot be taken for an option."""
    return f"./{text}" if text.startswith("-") else text
