"""Run the program's own commands, each once to its end."""

from __future__ import annotations

from pathlib import Path

from napari_mcm.cli.app import main as napari_mcm


def once(done: Path | None, *words: object) -> None:
    """Run a command unless the file that it ends with is there.

    Without such a file the command itself skips what exists.

    Raises
    ------
    SystemExit
        If it fails. The next call resumes it.
    """
    if done is not None and done.exists():
        return
    status = napari_mcm([str(word) for word in words])
    if status:
        raise SystemExit(status)


def train(run_dir: Path, *words: object) -> None:
    """Run a training, or resume an interrupted one."""
    begun = (run_dir / "config.json").exists()
    verb = words[: 2 if words[0] in ("mil", "mae") else 1]
    asked = (*verb, "--resume", run_dir) if begun else (*words, "--out", run_dir)
    once(run_dir / "summary.json", *asked)
