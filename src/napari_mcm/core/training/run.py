"""The directory of one training: configuration, metrics, checkpoint and results."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_mcm.core.errors import RunError
from napari_mcm.core.runtime import async_writes as writes
from napari_mcm.core.runtime.files import atomic_path, write_json, write_text
from napari_mcm.core.runtime.jobs import Job, Progress
from napari_mcm.core.runtime.run_verbs import (
    check_run_verb,
    resume_command,
    verb_of_run,
)
from napari_mcm.core.runtime.threads import run_in_thread

_LOOK_S = 0.05
_Options = TypeVar("_Options", bound=BaseModel)
Checkpoint = tuple[dict[str, torch.Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """Read and write the directory of one training.

    Attributes
    ----------
    path : Path
        Holds ``config.json``, ``metrics.csv``, ``checkpoint/`` and results.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> Run:
        """Start a run in a new or empty directory.

        Parameters
        ----------
        path : Path
            The directory.
        config : mapping
            All options, ready for JSON.

        Returns
        -------
        Run
            With its ``config.json``.

        Raises
        ------
        RunError
            If the directory holds a run already: nothing is ever overwritten.
        """
        run = cls(Path(path))
        if run.config_file.exists():
            command = resume_command(run.path) or f"--resume {run.path}"
            raise RunError(
                "holds a run already",
                run.path,
                f"Resume it with {command}, or choose another --out",
            )
        write_json(run.config_file, dict(config))
        return run

    @classmethod
    def open(cls, path: Path, verb: str = "") -> Run:
        """Open an existing run.

        Parameters
        ----------
        path : Path
            The directory.
        verb : str, optional
            Verb whose run is wanted, such as ``"mil train"``; by default any.

        Returns
        -------
        Run
            The run.

        Raises
        ------
        RunError
            If there is none, or it is a run of another verb.
        """
        run = cls(Path(path))
        if verb:
            check_run_verb(run.path, verb)
        if not run.config_file.is_file():
            raise RunError("is no run directory (no config.json)", run.path)
        return run

    @property
    def verb(self) -> str:
        """The verb that made the run; empty where it is unknown.

        Returns
        -------
        str
            Such as ``"mil train"``.
        """
        return verb_of_run(self.path)

    @property
    def config_file(self) -> Path:
        """Where all options of the run are written.

        Returns
        -------
        Path
            ``config.json``.
        """
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """Where the metrics of each step are written.

        Returns
        -------
        Path
            ``metrics.csv``.
        """
        return self.path / "metrics.csv"

    @property
    def checkpoint_file(self) -> Path:
        """Where the state is kept from which the run resumes.

        Returns
        -------
        Path
            ``checkpoint/last.safetensors``.
        """
        return self.path / "checkpoint" / "last.safetensors"

    def config(self) -> dict[str, Any]:
        """Read the run's configuration.

        Returns
        -------
        dict
            All options.

        Raises
        ------
        RunError
            If it cannot be read.
        """
        return self._read_json(self.config_file)

    def options(self, model: type[_Options]) -> _Options:
        """Read the run's configuration into the model of its verb.

        Parameters
        ----------
        model : type of BaseModel
            The verb's options.

        Returns
        -------
        BaseModel
            All options of the run.

        Raises
        ------
        RunError
            If it cannot be read, or holds options that this version does not accept.
        """
        try:
            return model.model_validate(self.config())
        except ValidationError as error:
            # One line: pydantic's own message has several for each wrong option.
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise RunError(
                f"has options that cannot be read ({name}: {first['msg']})",
                self.config_file,
            ) from None

    def save_checkpoint(
        self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint, which replaces the last one once it is complete.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            Every tensor that the training needs to resume, by name.
        state : mapping
            Everything else, ready for JSON.
        """
        self.begin_checkpoint(tensors, state)
        writes.wait_for_write(self.checkpoint_file)

    def begin_checkpoint(
        self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
    ) -> None:
        """Begin to write a checkpoint in the background.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            Every tensor that the training needs to resume, by name. They must not change
            until the checkpoint is written.
        state : mapping
            Everything else, ready for JSON.
        """
        ready = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        about = {"state": json.dumps(dict(state))}

        def write() -> None:
            with atomic_path(self.checkpoint_file) as part:
                save_file(ready, part, metadata=about)

        writes.begin(self.checkpoint_file, write)

    def checkpoint_written(self, progress: Progress) -> Job[None]:
        """Wait until a checkpoint that was begun is written, as a job.

        Parameters
        ----------
        progress : Progress
            Reported meanwhile.

        Yields
        ------
        Progress
            Every 50 ms.

        Raises
        ------
        McmError
            If it cannot be written.
        """
        while writes.is_under_way(self.checkpoint_file):
            yield progress
            time.sleep(_LOOK_S)
        writes.wait_for_write(self.checkpoint_file)

    def read_checkpoint(self) -> Job[Checkpoint | None]:
        """Read the last checkpoint in a thread, as a job: some have gigabytes.

        Returns
        -------
        tuple of dict, or None
            As :meth:`load_checkpoint` returns it.
        """
        return (
            yield from run_in_thread("Reading the checkpoint", self.load_checkpoint)
        )

    def load_checkpoint(self) -> Checkpoint | None:
        """Read the last checkpoint.

        Returns
        -------
        tuple of dict, or None
            Tensors by name, and everything else; None where there is none yet.

        Raises
        ------
        RunError
            If it is damaged.
        """
        writes.wait_for_write(self.checkpoint_file)
        if not self.checkpoint_file.is_file():
            return None
        try:
            with safe_open(self.checkpoint_file, "pt") as file:
                state = json.loads((file.metadata() or {})["state"])
                return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise RunError(
                f"is damaged ({error})",
                self.checkpoint_file,
                "Remove it to start this run again from its first step",
            ) from error

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint once the results are written."""
        writes.wait_for_write(self.checkpoint_file)
        # Not file by file: a kill in the middle of a write leaves parts behind, ours and
        # safetensors' own. What cannot be removed does no harm to a finished run.
        shutil.rmtree(self.checkpoint_file.parent, ignore_errors=True)

    def append_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Add the metrics of one step to ``metrics.csv``.

        Parameters
        ----------
        step : int
            Number of the step, from 0.
        values : mapping of str to float
            Metrics by name. One that is not measured at every step has empty cells at
            the others.
        """
        header = self._header()
        new = [name for name in values if name not in header]
        if not header:
            header = ["step", *values]
            self._write_rows("w", [header])
        elif new:
            header = self._widen(new)
        # About as many digits as a float32 holds.
        cells = {name: f"{value:.8g}" for name, value in values.items()}
        row = [str(step), *(cells.get(name, "") for name in header[1:])]
        self._write_rows("a", [row])

    def metrics(self) -> dict[str, list[float]]:
        """Read ``metrics.csv``.

        Returns
        -------
        dict of str to list of float
            One list per column, NaN where a cell is empty; empty before the first step.
        """
        if not self.metrics_file.exists():
            return {}
        header, *rows = self._rows()
        # A kill may leave half a line at the end.
        body = [row for row in rows if len(row) == len(header)]
        return {
            name: [float(row[i] or "nan") for row in body]
            for i, name in enumerate(header)
        }

    def _rows(self) -> list[list[str]]:
        with self.metrics_file.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file)) or [[]]

    def _header(self) -> list[str]:
        if not self.metrics_file.exists():
            return []
        with self.metrics_file.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), [])

    def _write_rows(self, mode: Literal["w", "a"], rows: list[list[str]]) -> None:
        with self.metrics_file.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    def _widen(self, names: list[str]) -> list[str]:
        """Add empty cells for new columns to all rows so far."""
        header, *rows = self._rows()
        text = io.StringIO(newline="")
        csv.writer(text).writerows(
            [[*header, *names], *([*row, *("" for _ in names)] for row in rows)]
        )
        with atomic_path(self.metrics_file) as part:
            part.write_text(text.getvalue(), encoding="utf-8", newline="")
        return [*header, *names]

    def trim_metrics(self, step: int) -> None:
        """Remove the metrics from a step on, since the run resumes there.

        A kill may have come after a step's line was written and before its checkpoint.

        Parameters
        ----------
        step : int
            Number of the step, from 0.
        """
        if not self.metrics_file.exists():
            return
        header, *lines = self.metrics_file.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if int(line.split(",")[0] or step) < step]
        write_text(self.metrics_file, "\n".join([header, *kept]) + "\n")

    @property
    def summary_file(self) -> Path:
        """Where the result of a finished run is written, last of all.

        Returns
        -------
        Path
            ``summary.json``.
        """
        return self.path / "summary.json"

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the run as finished.

        Parameters
        ----------
        summary : mapping
            Its result, ready for JSON.
        """
        write_json(self.summary_file, dict(summary))

    def summary(self) -> dict[str, Any] | None:
        """Read the result of a finished run.

        Returns
        -------
        dict or None
            The result; None where the run is not finished.

        Raises
        ------
        RunError
            If it cannot be read.
        """
        return (
            self._read_json(self.summary_file) if self.summary_file.exists() else None
        )

    def _read_json(self, file: Path) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot be read ({error})", file) from error
        return content
