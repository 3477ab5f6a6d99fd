"""Error messages that say which option to change when a job runs out of memory."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from napari_mcm.core.errors import McmError

_WORDS = ("out of memory", "not enough memory", "allocate memory", "alloc_failed")
_WITHOUT_GPU = "or choose the device cpu (--device cpu)"


@dataclass(frozen=True)
class BatchOption:
    """The option of a job that determines its memory, and advice to reduce it.

    Attributes
    ----------
    unit : str
        What the job computes in batches, in plural: ``"patches"``.
    otherwise : str
        Other advice, which completes the sentence "Use ...".
    option : str
        Name of the option in the form and on the command line; empty if there is none.
    key, step : str
        Dotted names in the configuration of the option and of its upper limit.
    same : bool
        Whether the result does not depend on the option.
    fallback : int
        Value to suggest if the batch size is automatic; 0 if it cannot be reduced.
    """

    unit: str
    otherwise: str
    option: str = ""
    key: str = ""
    step: str = ""
    same: bool = False
    fallback: int = 1

    def error(self, config: Mapping[str, Any], where: Path | None) -> McmError:
        """Return the error for a job with these options.

        Parameters
        ----------
        config : mapping
            Options of the job.
        where : Path or None
            Folder or file that the message names.
        """
        size = self._size(config)
        batch = f"the {self.unit}"
        if size is not None:
            single = f"{batch}, even one at a time"
            batch = f"{size:,} {self.unit} at once" if size > 1 else single
        what = f"the memory is too small for {batch}"
        return McmError(what, where, self._advice(size))

    def _advice(self, size: int | None) -> str:
        fits = self.fallback if size is None else size // 2
        if not self.option or fits < 1:
            return f"Use {self.otherwise}"
        most = f"{fits:,} or less" if fits > 1 else "1"
        same = ": the result stays the same" if self.same else ""
        return f"Set {self.option} to {most}{same}. Or use {self.otherwise}"

    def _size(self, config: Mapping[str, Any]) -> int | None:
        """Return the batch size in use; None if it is automatic and unknown."""
        size, step = _value(config, self.key), _value(config, self.step)
        if isinstance(size, int):
            return min(size, step) if isinstance(step, int) else size
        # On a CPU the automatic batch is small already: it follows the network's size.
        return step if isinstance(step, int) and not _on_cpu(config) else None


WINDOWS = BatchOption(
    "context windows",
    "a smaller student, teacher or context window; in a new run folder",
    "Chunk windows (--chunk-windows)",
    "chunk_windows",
    "optimiser.batch_windows",
    same=True,
    fallback=0,
)
IMAGES = BatchOption(
    "images",
    "a smaller ViT or image size; in a new run folder",
    "Chunk images (--chunk-images)",
    "chunk_images",
    "recipe.batch_size",
    same=True,
)
LABELLED = BatchOption(
    "images",
    "a smaller network to start from; in a new run folder",
    "Chunk images (--chunk-images)",
    "chunk_images",
    "fit.batch_size",
)
BAGS = BatchOption(
    "patches of a slide",
    "a smaller --cache-gib; in a new run folder",
    "Patches per slide (--max-patches)",
    "training.max_patches",
    fallback=10_000,
)
PATCHES = BatchOption(
    "patches",
    f"a smaller encoder, {_WITHOUT_GPU}",
    "Patches per batch (--batch-size)",
    "batch_size",
    fallback=8,
)
CELLS = BatchOption("classifier", f"a smaller classifier, {_WITHOUT_GPU}")
ATTENTION = BatchOption(
    "patches of the slide", f"features of a coarser resolution, {_WITHOUT_GPU}"
)
PICTURES = BatchOption("model", f"a pre-training of a smaller ViT, {_WITHOUT_GPU}")


@contextmanager
def explain_out_of_memory(
    batch: BatchOption,
    config: BaseModel | Mapping[str, Any] | None = None,
    where: Path | None = None,
) -> Iterator[None]:
    """Turn out-of-memory errors into a message that suggests smaller options.

    Parameters
    ----------
    batch : BatchOption
        Option that determines the memory of the job.
    config : BaseModel or mapping, optional
        Options of the job.
    where : Path, optional
        Folder or file of the job, for the message.

    Raises
    ------
    McmError
        In place of an error that means too little memory; other errors pass through.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        options = config.model_dump() if isinstance(config, BaseModel) else config
        raise batch.error(options or {}, where) from error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of NumPy, PyTorch or the system means too little memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _WORDS)


def _value(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _on_cpu(config: Mapping[str, Any]) -> bool:
    import torch

    device = str(_value(config, "compute.device") or "auto")
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return device == "cpu" or (device == "auto" and not gpu)
