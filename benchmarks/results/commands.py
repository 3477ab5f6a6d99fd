"""The program's own commands, each of them run to its end once."""

from __future__ import annotations

from pathlib import Path

from napari_mcm.cli.app import main as napari_mcm


def once(done: Path | None, *words: object) -> None:
    """Run a command unless the file that it ends with is there.

    Without such a file the command itself knows what it has done already.

    Raises
    ------
    SystemExit
        If it fails; what it has done so far is gone on from another time.
    """
    if done is not None and done.exists():
        return
    status = napari_mcm([str(word) for word in words])
    if status:
        raise SystemExit(status)


def train(run_dir: Path, *words: object) -> None:
    """Run a training, or go on with one that was broken off."""
    begun = (run_dir / "config.json").exists()
    verb = words[: 2 if words[0] in ("mil", "mae") else 1]
    asked = (*verb, "--resume", run_dir) if begun else (*words, "--out", run_dir)
    once(run_dir / "summary.json", *asked)
