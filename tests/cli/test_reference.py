"""Each verb has a page: options as its model has them, examples as its parser does."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_mcm.cli.app import VERBS, load_verb, make_parser
from napari_mcm.cli.options import read_config
from napari_mcm.cli.reference import BEGIN, END, main, options_tables, pages, update
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.runtime.options import walk

DOCS = Path(__file__).parents[2] / "docs"
INDEX = DOCS / "cli.md"
PAGES = pages(INDEX)

# What ends a command in a shell's line.
_ENDS = {"|", "||", "&", "&&", ";", ">", ">>", "2>"}
_WORDS = {"--help", "--version", "--config", "--json"}


def examples(page: Path) -> Iterator[str]:
    """Give each command of ours in a page's shell examples, on one line."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("napari-mcm "):
                yield " ".join(line.split())


def words_of(line: str) -> list[str]:
    """Take a line apart as a shell does, up to where the command ends."""
    words = shlex.split(line, comments=True)[1:]
    ends = [number for number, word in enumerate(words) if word in _ENDS]
    return words[: ends[0]] if ends else words


def verb_of(words: list[str]) -> str:
    """Tell which verb a line begins with, of two words or one."""
    return " ".join(words[:2]) if " ".join(words[:2]) in VERBS else words[0]


EXAMPLES = [
    pytest.param(line, id=f"{page.stem}: {line}")
    for page in sorted(
        [*DOCS.glob("*.md"), *DOCS.glob("results/*.md"), *DOCS.glob("cli/*.md")]
    )
    for line in examples(page)
]


def test_every_verb_has_a_page_and_every_page_a_verb() -> None:
    assert sorted(DOCS.glob("cli/*.md")) == sorted(PAGES.values())
    index = INDEX.read_text(encoding="utf-8")
    for verb, page in PAGES.items():
        assert page.read_text(encoding="utf-8").startswith(f"# {verb}\n"), page
        assert f"| [{verb}](cli/{page.name}) | {VERBS[verb]} |" in index


def test_every_page_is_up_to_date() -> None:
    hint = "run: python -m napari_mcm.cli.reference docs/cli.md"
    for page, text in update(INDEX).items():
        assert page.read_text(encoding="utf-8") == text, f"{page}; {hint}"


def test_every_page_is_in_a_toctree() -> None:
    entries: set[Path] = set()
    for page in [*DOCS.glob("*.md"), *PAGES.values()]:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.M | re.S):
            for line in filter(None, map(str.strip, block.splitlines())):
                if not line.startswith(":"):
                    entries |= set(page.parent.glob(f"{line}.md"))
    everything = {
        *DOCS.glob("*.md"),
        *DOCS.glob("results/*.md"),
        *DOCS.glob("cli/*.md"),
    }
    assert everything - entries == {DOCS / "index.md"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_has_examples_of_its_verb(verb: str) -> None:
    verbs = [verb_of(words_of(line)) for line in examples(PAGES[verb])]
    assert verbs.count(verb) >= 2


@pytest.mark.parametrize("line", EXAMPLES)
def test_the_parser_takes_each_example(line: str) -> None:
    words = words_of(line)
    if words[0] in _WORDS or words[-1] == "--help":
        return
    verb = verb_of(words)
    arguments = make_parser(verb).parse_args(words[len(verb.split()) :])
    if "config" not in arguments:  # which may have what the line lacks
        read_config(arguments, load_verb(verb).OPTIONS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_names_no_option_that_there_is_not(verb: str) -> None:
    known = {
        flag
        for other in VERBS
        for option in walk(load_verb(other).OPTIONS)
        for flag in (option.flag, f"--no-{option.flag[2:]}")
    }
    text = PAGES[verb].read_text(encoding="utf-8")
    spoken = re.findall(r"(?<![\w-])--[a-z][\w-]*", text.partition(BEGIN)[0])
    assert set(spoken) <= known | _WORDS


def test_options_stand_in_the_groups_of_the_help() -> None:
    tables = options_tables("grid")
    laid = tables.partition("### How patches are laid over the tissue\n")[2]
    size = "| `--patch-size` | N | 224 | Side of a patch, in pixels of that mpp |"
    assert size in laid.partition("###")[0]
    assert "| `SLIDE` | PATH |" in tables.partition("###")[0]
    assert "| `--icc`, `--no-icc` |  | no |" in tables
    assert "given back with `--masks` |" in tables
    assert "| `--at` | X,Y ... |" in options_tables("similarity")


def copied(folder: Path) -> Path:
    """Copy the pages that are written to."""
    shutil.copytree(DOCS / "cli", folder / "cli")
    return Path(shutil.copy(INDEX, folder / "cli.md"))


def run_on(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the command does."""
    monkeypatch.setattr("sys.argv", ["reference", str(index)])
    main()


def test_the_command_mends_what_is_generated_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = copied(tmp_path)
    page = pages(index)["mil train"]
    whole = page.read_text(encoding="utf-8")
    before, _, rest = whole.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"My own.\n{before}{BEGIN}old{END}{after}", encoding="utf-8")
    run_on(index, monkeypatch)
    assert page.read_text(encoding="utf-8") == f"My own.\n{whole}"


def test_a_verb_without_a_page_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = copied(tmp_path)
    pages(index)["mil train"].unlink()
    with pytest.raises(SystemExit, match=r"mil-train\.md: the verb 'mil train' has no"):
        run_on(index, monkeypatch)


def test_a_page_without_its_markers_is_named(tmp_path: Path) -> None:
    index = copied(tmp_path)
    pages(index)["grid"].write_text("# grid\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"grid\.md: lacks the lines"):
        update(index)
