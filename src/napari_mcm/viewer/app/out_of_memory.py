"""Says in one line what to do where the memory was too small for a job."""

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
class Batch:
    """How much a kind of job computes at once, and which option says so.

    Attributes
    ----------
    unit : str
        What is computed, for people.
    otherwise : str
        What else helps.
    option : str
        As the form and the command line call it; empty where there is none.
    key, step : str
        Where a configuration has it, and what it is at most.
    same : bool
        Whether the result stays the same.
    fallback : int
        What to try where nobody knows how much it was; 0 where that was the least.
    """

    unit: str
    otherwise: str
    option: str = ""
    key: str = ""
    step: str = ""
    same: bool = False
    fallback: int = 1

    def error(self, config: Mapping[str, Any], where: Path | None) -> McmError:
        """Make the answer for a job with these options."""
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
            return f"Take {self.otherwise}"
        most = f"{fits:,} or less" if fits > 1 else "1"
        same = ": the result stays the same" if self.same else ""
        return f"Set {self.option} to {most}{same}. Or take {self.otherwise}"

    def _size(self, config: Mapping[str, Any]) -> int | None:
        """Return how much was computed at once; None where that is automatic."""
        size, step = _value(config, self.key), _value(config, self.step)
        if isinstance(size, int):
            return min(size, step) if isinstance(step, int) else size
        # On a CPU automatic is little already, by how large the network is.
        return step if isinstance(step, int) and not _on_cpu(config) else None


WINDOWS = Batch(
    "context windows",
    "a smaller student, teacher or context window; in a new run folder",
    "Chunk windows (--chunk-windows)",
    "chunk_windows",
    "optimiser.batch_windows",
    same=True,
    fallback=0,
)
IMAGES = Batch(
    "images",
    "a smaller ViT or image size; in a new run folder",
    "Chunk images (--chunk-images)",
    "chunk_images",
    "recipe.batch_size",
    same=True,
)
LABELLED = Batch(
    "images",
    "a smaller network to start from; in a new run folder",
    "Chunk images (--chunk-images)",
    "chunk_images",
    "fit.batch_size",
)
BAGS = Batch(
    "patches of a slide",
    "a smaller --cache-gib; in a new run folder",
    "Patches of a slide (--max-patches)",
    "training.max_patches",
    fallback=10_000,
)
PATCHES = Batch(
    "patches",
    f"a smaller encoder, {_WITHOUT_GPU}",
    "Patches per batch (--batch-size)",
    "batch_size",
    fallback=8,
)
CELLS = Batch("classifier", f"a smaller classifier, {_WITHOUT_GPU}")
LOOKED_AT = Batch(
    "patches of the slide", f"features of a coarser resolution, {_WITHOUT_GPU}"
)
PICTURES = Batch("model", f"a pre-training of a smaller ViT, {_WITHOUT_GPU}")


@contextmanager
def explain_out_of_memory(
    batch: Batch,
    config: BaseModel | Mapping[str, Any] | None = None,
    where: Path | None = None,
) -> Iterator[None]:
    """Have a lack of memory be answered with what may fit.

    Parameters
    ----------
    batch : Batch
        What is computed at once.
    config : BaseModel or mapping, optional
        The job's options.
    where : Path, optional
        Its folder.

    Raises
    ------
    McmError
        In the place of what was raised for lack of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        options = config.model_dump() if isinstance(config, BaseModel) else config
        raise batch.error(options or {}, where) from error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error, of NumPy or PyTorch, is for lack of memory."""
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
