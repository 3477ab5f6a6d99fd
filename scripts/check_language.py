"""Find phrases that the documentation and the code do not use, and say what to write.

    python scripts/check_language.py [FILE ...]

Without files it reads the pages, and the strings, comments and names of the package.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

INSTEAD = {
    r"\bg(?:o|oes|one|oing) on with\b": "resume, continue",
    r"\bwent on with\b": "resumed, continued",
    r"\bbroken off\b": "interrupted",
    r"\b(?:is|are|was|were|be|been) told\b": "is reported",
    r"\bkept out\b|\bkeeps? out\b": "held out, excluded",
    r"\blearn(?:ed|t|s)? from\b": "the training set, trains on",
    r"\ba file a slide\b": "one file per slide",
    r"\bone an encoder\b": "one per encoder",
    r"\ba (?:batch|step|slide|patch|second|class|fold|seed) (?:at|of) (?:a|the) time\b": (
        "one ... at a time"
    ),
    r"\b(?:patches|windows|images|pictures) a (?:batch|step|second)\b": "per batch",
    r"\bof before\b": "earlier, previous",
    r"\bin another way\b": "differently",
    r"\bby itself\b": "automatically, on its own",
    r"\bmade otherwise\b": "made with other options",
    r"\bwho cancels?\b": "cancelling",
    r"\bto be had\b": "available",
    r"\bso much alike\b": "above the threshold",
    r"\bsign of life\b": "heartbeat",
    r"\bhead's start\b": "head warm-up",
    r"\bnobody (?:mistakes|sees|is)\b": "cannot be mistaken, no reader sees",
    r"\bwhat is said of\b": "properties",
    r"\bas is\b(?= what)": "like",
    r"\bhad a hand in\b": "edited",
}
"""Phrases that are out, as regular expressions, and the plain words for them."""

PLACES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/**/*.md",
    "src/**/*.py",
    "src/**/*.html",
)


def main() -> int:
    """Print each place on a line; 1 where there is any."""
    named = [Path(name) for name in sys.argv[1:]]
    paths = named or [path for place in PLACES for path in sorted(ROOT.glob(place))]
    found = [
        line for path in paths if "_build" not in path.parts for line in check(path)
    ]
    print("\n".join(found) or "No phrase that is out.")
    return bool(found)


def check(path: Path) -> list[str]:
    """Return one line per phrase that is out.

    Parameters
    ----------
    path : Path
        A text file.
    """
    # A phrase may be broken over two lines, and over a comment's or string's edge.
    text = path.read_text(encoding="utf-8")
    joined = re.sub(r"[ \t]*\n[ \t#\"f]*", lambda m: " " * len(m[0]), text)
    spaced = [(re.compile(p.replace(" ", r" +"), re.I), w) for p, w in INSTEAD.items()]
    return [
        f"{path}:{text.count(chr(10), 0, m.start()) + 1}: "
        f"“{' '.join(m[0].split())}”: write {words}"
        for pattern, words in spaced
        for m in pattern.finditer(joined)
    ]


if __name__ == "__main__":
    sys.exit(main())
