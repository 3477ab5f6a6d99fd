"""The entry point of the command line: parse the arguments and run one verb.

Each verb is a module with the interface of :class:`Verb`. Only the chosen one is
imported, so that ``napari-mcm --help`` is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from napari_mcm.cli.output import JobCancelledError, Outcome, emit, one_line, say
from napari_mcm.core.errors import ConfigError, McmError

if TYPE_CHECKING:
    from pydantic import BaseModel

# The order is that of a typical workflow; --help and the documentation list it.
VERBS = {
    "demo": "run the whole main job on a sample or your slides, with a report",
    "sample": "generate a cohort of slides to try things on",
    "info": "show what a slide file holds, and how it would be read",
    "grid": "find the tissue, lay patches over it, draw both",
    "finetune": "fine-tune an encoder on slides, without labels",
    "study": "compare arms of a fine-tuning over folds and seeds",
    "extract": "compute the features of all patches, one file per slide",
    "similarity": "map which patches are similar to the ones you point at",
    "atlas": "cluster patches, and place them on a 2-D map",
    "register": "register two serial sections, and carry annotations over",
    "search": "find similar patches on all slides of a cohort",
    "labels import": "label the patches in regions outlined elsewhere",
    "labels merge": "merge the labels of several people, and list where they differ",
    "labels train": "train a classifier of patches from labels and features",
    "classify patches": "classify the patches of slides, and measure the classes' areas",
    "mil train": "train and test a classifier of slides on their features",
    "mil predict": "predict slides with a trained classifier",
    "mil attention": "draw what a trained classifier attends to on a slide",
    "mil compare": "compare encoders with the same classifier on the same folds",
    "evaluate": "compare encoders on labelled regions, with intervals",
    "mae pretrain": "pre-train a vision transformer on unlabelled images",
    "mae reconstruct": "show reconstructions of a masked autoencoder, and their errors",
    "classify train": "train a classifier of cells or patches",
    "classify predict": "classify images with a trained classifier",
    "classify cells": "classify the cells marked on a slide",
    "classify evaluate": "score a trained classifier on labelled images",
    "ablate": "measure what more labels bring, for each start of a classifier",
    "verify": "check that feature files are complete and undamaged",
    "convert": "convert patch features to and from other tools",
    "export": "write an encoder as TorchScript, torch.export, ONNX or for a hub",
    "bench": "measure reading and extraction here, and what limits them",
    "doctor": "check this machine: software, device, precision, display, network",
    "view": "open slides or a project in napari with the plugin",
}

_HELP = """\
usage: napari-mcm VERB [OPTIONS]

Fine-tune patch encoders on whole-slide images, and see which tissue they find similar.

{verbs}

  napari-mcm VERB --help   all options of a verb, with units and defaults
  napari-mcm --version     the version

Most verbs take --json (one JSON object as the last line of standard output) and
--config FILE (the config.json of an earlier run; options on the line override it).

exit status: 0 done, 1 failed, 2 wrong usage, 3 finished but some slides or patches
failed, 130 cancelled. NAPARI_MCM_DEBUG=1 shows the traceback of an error.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after ``napari-mcm``; by default those of this process.

    Returns
    -------
    int
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with _terminate_as_interrupt():
            return _dispatch(words)
    except McmError as error:
        return _fail(str(error), error.exit_code)
    except JobCancelledError as cancelled:
        return _fail(f"cancelled; {cancelled}", 130, prefix="")
    except KeyboardInterrupt:
        return _fail("cancelled; run the same command again", 130, prefix="")
    except BrokenPipeError:
        # The reader of our output has closed the pipe (`| head`). Redirecting stdout
        # prevents another error when Python flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - one line for any error
        hint = "" if _debugging() else ". NAPARI_MCM_DEBUG=1 shows the traceback"
        return _fail(f"unexpected {type(error).__name__}: {error}{hint}", 1)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        from napari_mcm import __version__

        print(f"napari-mcm {__version__}")
        return 0
    verb, rest = _find_verb(words)
    from napari_mcm.cli.options import read_config

    module, parser = load_verb(verb), make_parser(verb)
    try:
        arguments = parser.parse_args(rest)
    except SystemExit as end:  # --help was printed
        return int(end.code or 0)
    as_json = "json" in arguments
    # Libraries may print, which must not mix with the JSON.
    to_stderr = contextlib.redirect_stdout(sys.stderr)
    with to_stderr if as_json else contextlib.nullcontext():
        outcome = module.run(read_config(arguments, module.OPTIONS))
    return emit(outcome, as_json)


def _find_verb(words: list[str]) -> tuple[str, list[str]]:
    """Split the arguments into the verb, of one or two words, and the rest."""
    for count in (1, 2):
        verb = " ".join(words[:count])
        if verb in VERBS and len(words) >= count:
            return verb, words[count:]
    family = [verb for verb in VERBS if verb.split()[0] == words[0]]
    if family:
        raise ConfigError(f"'{words[0]}' is followed by one of: {_seconds(family)}")
    verb = words[0]
    close = difflib.get_close_matches(verb, VERBS, 1)
    hint = f"Did you mean {close[0]}?" if close else "See napari-mcm --help"
    raise ConfigError(f"there is no verb '{verb}'", hint=hint)


def _seconds(family: list[str]) -> str:
    return ", ".join(verb.split()[1] for verb in family)


def load_verb(verb: str) -> Verb:
    """Import the module of a verb: ``mil_train`` for ``mil train``."""
    name = verb.replace(" ", "_")
    return cast(Verb, importlib.import_module(f"napari_mcm.cli.{name}"))


def make_parser(verb: str) -> argparse.ArgumentParser:
    """Return the argument parser of a verb, with all its options."""
    from napari_mcm.cli.options import add_options

    module = load_verb(verb)
    parser = _Parser(
        prog=f"napari-mcm {verb}",
        description=module.__doc__,
        formatter_class=_Formatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    add_options(parser, module.OPTIONS, module.POSITIONAL)
    return parser


class Verb(Protocol):
    """The interface of a verb's module.

    The docstring of the module is the first part of the verb's help.

    Attributes
    ----------
    OPTIONS : type of BaseModel
        Model of all options.
    POSITIONAL : str
        Name of the option whose value is given without a flag; empty if there is none.
        Of two, separated by a space, the first takes one value.
    """

    OPTIONS: type[BaseModel]
    POSITIONAL: str

    def run(self, options: Any) -> Outcome:
        """Run the verb and return its outcome."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint=f"See {self.prog} --help")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def _help() -> str:
    verbs = "\n".join(f"  {name:<16} {text}" for name, text in VERBS.items())
    return _HELP.format(verbs=verbs).rstrip()


def _fail(text: str, status: int, prefix: str = "error: ") -> int:
    if _debugging():
        traceback.print_exc()
    say(prefix + one_line(text))
    return status


def _debugging() -> bool:
    return os.environ.get("NAPARI_MCM_DEBUG", "") not in ("", "0")


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that the job cleans up and can be resumed."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # only the main thread may; tests may run elsewhere
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
