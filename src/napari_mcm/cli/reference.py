"""Write the reference of all verbs into the documentation.

``python -m napari_mcm.cli.reference docs/cli.md`` updates the table of verbs in that
page, and the options of each verb on its own page, in the folder ``cli`` beside it. It
writes between two markers; the rest of a page is written by hand.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from napari_mcm.cli.app import VERBS, load_verb
from napari_mcm.core.errors import ConfigError, McmError
from napari_mcm.core.runtime.files import write_text
from napari_mcm.core.runtime.options import Option, walk

BEGIN, END = "<!-- options -->", "<!-- end of options -->"
_BAR = "\\|"
_EVERY = (
    "Every verb also takes [`--config FILE`](../cli.md#configuration-files) and "
    "[`--json`](../cli.md#what-scripts-can-rely-on)."
)


def pages(index: Path) -> dict[str, Path]:
    """Return the page of each verb: ``mil-train.md`` for ``mil train``.

    Parameters
    ----------
    index : Path
        The page with the table of verbs; the pages are in the folder of the same name.
    """
    folder = index.with_suffix("")
    return {verb: folder / f"{verb.replace(' ', '-')}.md" for verb in VERBS}


def update(index: Path) -> dict[Path, str]:
    """Return the up-to-date text of the index and of each verb's page.

    Parameters
    ----------
    index : Path
        The page with the table of verbs.

    Raises
    ------
    ConfigError
        If a verb has no page, or a page has no markers.
    """
    texts = {index: _filled(index, verbs_table())}
    for verb, page in pages(index).items():
        if not page.is_file():
            raise ConfigError(
                f"the verb '{verb}' has no page",
                page,
                f"Write its purpose, and the lines {BEGIN} and {END}",
            )
        texts[page] = _filled(page, options_tables(verb))
    return texts


def verbs_table() -> str:
    """Return a Markdown table of all verbs, with links to their pages."""
    rows = (
        f"| [{verb}](cli/{verb.replace(' ', '-')}.md) | {line} |"
        for verb, line in VERBS.items()
    )
    return "\n".join(["| verb | what it does |", "|---|---|", *rows])


def options_tables(verb: str) -> str:
    """Return the help of a verb in Markdown, with a table for each group of options."""
    module = load_verb(verb)
    parts = [_with_code(inspect.getdoc(module) or "")]
    for group, options in groupby(walk(module.OPTIONS), lambda option: option.group):
        table = "\n".join(_table(list(options), module.POSITIONAL))
        parts += [f"### {group}", table] if group else [table]
    return "\n\n".join([*parts, _EVERY])


def _filled(page: Path, content: str) -> str:
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"lacks the lines {BEGIN} and {END}", page)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def _table(options: list[Option], positional: str) -> Iterator[str]:
    yield "| option | value | default | meaning |"
    yield "|---|---|---|---|"
    for option in options:
        yield _row(option, option.is_among(positional))


def _row(option: Option, positional: bool) -> str:
    name = f"`{option.positional_name if positional else option.flag}`"
    value = option.metavar.replace("|", " | ") + (" ..." if option.many else "")
    if option.kind is bool:
        name, value = f"{name}, `--no-{option.flag[2:]}`", ""
    cells = (name, value, option.shown_default, _with_code(option.described))
    return f"| {' | '.join(cell.replace('|', _BAR) for cell in cells)} |"


def _with_code(text: str) -> str:
    """Mark flags as code: Markdown would turn two dashes into one."""
    return re.sub(r"(?<![\w`-])--[a-z][a-z0-9-]*", r"`\g<0>`", text)


def main() -> None:
    """Write the up-to-date index and pages."""
    try:
        for page, text in update(Path(sys.argv[1])).items():
            write_text(page, text)
    except McmError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
