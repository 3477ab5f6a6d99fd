"""The structure of the package: its figures, and the picture in docs/architecture.md.

    python scripts/structure.py              # figures of the tree
    python scripts/structure.py --picture docs/structure.svg

Figures come from the source files, arrows from the imports.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import statistics
import tokenize
from collections import Counter
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGE = "napari_mcm"
LONG_FUNCTION = 40
FLOORS = (
    ("cli", "viewer"),
    ("core.studies",),
    (
        "core.mcm",
        "core.mil",
        "core.cells",
        "core.search",
        "core.atlas",
        "core.sections",
    ),
    ("core.project",),
    ("core.mae",),
    ("core.heatmaps", "core.evaluation"),
    ("core.labelling",),
    ("core.features", "core.training"),
    ("core.encoders",),
    ("core.lattice",),
    ("core.grid", "core.registration"),
    ("core.tissue",),
    ("core.slides", "core.synthetic"),
    ("core.runtime",),
)
"""Packages from the top floor down, as the import contracts have them."""


def main() -> None:
    """Print figures, or draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=ROOT / "src" / PACKAGE)
    parser.add_argument("--picture", type=Path, help="where to draw the imports")
    options = parser.parse_args()
    if options.picture is not None:
        draw(options.picture)
        return
    for name, value in figures(options.source).items():
        print(f"{name:42s} {value}")


def figures(source: Path) -> dict[str, str]:
    """Count modules, lines, functions, comments and imports of a source tree."""
    texts = {path: path.read_text(encoding="utf-8") for path in source.rglob("*.py")}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    lines = {path: text.count("\n") for path, text in texts.items()}
    functions = [
        (path, node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = [
        node.end_lineno - node.lineno + 1 - _docstring_lines(node)
        for _, node in functions
        if node.end_lineno is not None
    ]
    core = {path: text for path, text in texts.items() if "core" in path.parts}
    comments = sum(_comments(text) for text in core.values())
    importers = _importers(trees, source)
    largest = max(lines, key=lambda path: lines[path])
    return {
        "modules": f"{len(lines):,}",
        "lines": f"{sum(lines.values()):,}",
        "lines of code": f"{sum(map(_code_lines, texts.values())):,}",
        "median module, lines": f"{statistics.median(lines.values()):.0f}",
        "largest module": f"{lines[largest]} ({largest.relative_to(source)})",
        "modules over 500 lines": str(sum(n > 500 for n in lines.values())),
        "modules under 60 lines": str(sum(n < 60 for n in lines.values())),
        "modules with one importer": str(sum(len(v) == 1 for v in importers.values())),
        "functions": f"{len(functions):,}",
        f"functions over {LONG_FUNCTION} lines of code": str(
            sum(n > LONG_FUNCTION for n in long)
        ),
        "longest function, lines of code": str(max(long)),
        "circles of packages that import each other": str(len(_circles(importers))),
        "comments per 100 lines of code in core": (
            f"{100 * comments / sum(map(_code_lines, core.values())):.1f}"
        ),
    }


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if not isinstance(first, ast.Expr) or ast.get_docstring(node) is None:
        return 0
    assert first.end_lineno is not None
    return first.end_lineno - first.lineno + 1


def _code_lines(text: str) -> int:
    """Count the lines that hold code: no docstrings, comments or blank lines."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if string and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#")
        for number, line in enumerate(text.splitlines(), 1)
        if number not in docstrings
    )


def _comments(text: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    no_prose = re.compile(r"#\s*(noqa|type:|pragma)")
    return sum(
        token.type == tokenize.COMMENT and not no_prose.match(token.string)
        for token in tokens
    )


def _importers(trees: dict[Path, ast.Module], source: Path) -> dict[str, set[str]]:
    """Map each module to those that import it, wherever in them the import stands."""
    names = {_module(path, source) for path in trees}
    found: dict[str, set[str]] = {name: set() for name in names}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                target = inner if inner in names else node.module
                if target in names:
                    found[target].add(_module(path, source))
    return found


def _module(path: Path, source: Path) -> str:
    parts = (PACKAGE, *path.relative_to(source).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _circles(importers: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the pairs of packages that import each other."""
    edges = {
        (_package(importer), _package(imported))
        for imported, all_importers in importers.items()
        for importer in all_importers
    }
    return {
        frozenset(edge) for edge in edges if edge[0] != edge[1] and edge[::-1] in edges
    }


def _package(module: str) -> str:
    return ".".join(module.split(".")[:3])


def draw(out: Path) -> None:
    """Draw the packages on their floors, with arrows for the imports.

    An import that is also reached over other packages has no arrow of its own.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": PACKAGE, "font.family": "sans-serif"}
    import matplotlib.pyplot as plt

    graph = grimp.build_graph(PACKAGE)
    rooms = [room for floor in FLOORS for room in floor]
    places = {
        room: ((i + 0.5) / len(floor), -row)
        for row, floor in enumerate(FLOORS)
        for i, room in enumerate(floor)
    }
    counts = Counter(
        (a, b)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if (a := _room(importer, rooms)) and (b := _room(imported, rooms)) and a != b
    )
    figure, axes = plt.subplots(figsize=(10, 11))
    for (a, b), count in sorted(counts.items()):
        if _is_indirect(a, b, set(counts)):
            continue
        axes.annotate(
            "",
            places[b],
            places[a],
            arrowprops={
                "arrowstyle": "-|>",
                "lw": 0.6 + min(count, 60) / 30,
                "color": "0.5",
                "shrinkA": 16,
                "shrinkB": 18,
                "connectionstyle": "arc3,rad=0.08",
            },
        )
    for room, (x, y) in places.items():
        modules = sum(_room(module, rooms) == room for module in graph.modules)
        plural = "module" if modules == 1 else "modules"
        text = f"{room.removeprefix('core.')}\n{modules} {plural}"
        box = {"boxstyle": "round,pad=0.4", "fc": "#eaf2fb", "ec": "#0072B2"}
        axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box)
    axes.set_xlim(0, 1)
    axes.set_ylim(-len(FLOORS) + 0.4, 0.6)
    axes.axis("off")
    figure.savefig(out, bbox_inches="tight", metadata={"Date": None})


def _is_indirect(start: str, end: str, edges: set[tuple[str, str]]) -> bool:
    """Return whether a way over other rooms leads from one room to another."""
    seen, waiting = set(), [b for a, b in edges if a == start and b != end]
    while waiting:
        room = waiting.pop()
        if room == end:
            return True
        if room not in seen:
            seen.add(room)
            waiting += [b for a, b in edges if a == room]
    return False


def _room(module: str, rooms: list[str]) -> str:
    inner = module.removeprefix(f"{PACKAGE}.")
    fitting = [r for r in rooms if inner == r or inner.startswith(f"{r}.")]
    return fitting[0] if fitting else ""


if __name__ == "__main__":
    main()
