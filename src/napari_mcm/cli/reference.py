"""The reference of all options, for the documentation, from the models themselves.

``python -m napari_mcm.cli.reference docs/cli.md`` writes it into the page, between its
two markers.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from napari_mcm.cli.app import VERBS, load_verb
from napari_mcm.core.files import write_text
from napari_mcm.core.options import Option, walk

BEGIN, END = "<!-- options -->", "<!-- end of options -->"


def reference() -> str:
    """Give a section with a table of options for each verb, in Markdown."""
    return "\n".join(_section(verb) for verb in VERBS)


def update(page: str) -> str:
    """Put the reference between a page's markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _section(verb: str) -> str:
    module = load_verb(verb)
    lines = [f"### {verb}", "", inspect.getdoc(module) or "", ""]
    lines += ["| option | value | default | what it is |", "|---|---|---|---|"]
    lines += [_row(option, module.POSITIONAL) for option in walk(module.OPTIONS)]
    return "\n".join([*lines, ""])


def _row(option: Option, positional: str) -> str:
    plain = option.path == (positional,)
    name = option.positional_name if plain else option.flag
    value = "" if option.kind is bool else option.metavar.replace("|", " \\| ")
    default = option.shown_default.replace("|", "\\|")
    what = option.described.replace("|", "\\|")
    return f"| `{name}` | {value} | {default} | {what} |"


def main() -> None:
    """Bring a page up to date."""
    path = Path(sys.argv[1])
    write_text(path, update(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
