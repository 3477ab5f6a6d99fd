"""The device and the precision in which encoders compute."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from napari_mcm.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


AUTO_VARIABLE = "NAPARI_MCM_AUTO_PRECISION"
"""Environment variable that fixes the precision of ``auto``, for example on a cluster."""


class ComputeConfig(BaseModel):
    """Device, precision and CPU threads of the computation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="Where to compute: auto, cpu, cuda, cuda:N or mps.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format; auto is bfloat16 where the hardware computes it "
        "fast and the encoder's features stay the same, else float32.",
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads to compute with; by default PyTorch's own."
    )


def _exact_by_default(given: object) -> object:
    return {"precision": "float32", **given} if isinstance(given, dict) else given


ExactComputeConfig = Annotated[ComputeConfig, BeforeValidator(_exact_by_default)]
"""For tasks whose results are compared: float32 unless another precision is set."""


def choose_device(config: ComputeConfig) -> torch.device:
    """Resolve the configured device to one that PyTorch can use.

    Parameters
    ----------
    config : ComputeConfig
        The device to use; ``auto`` prefers CUDA, then MPS, then the CPU.

    Returns
    -------
    torch.device
        The device, for example ``cuda:0``.

    Raises
    ------
    ConfigError
        If PyTorch does not see the device.
    """
    import torch

    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        # An NVIDIA GPU comes before Apple's, and both before the CPU.
        name = "mps" if name == "cpu" and torch.backends.mps.is_available() else name
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(
                f"--device {name}: PyTorch sees {count} CUDA device(s)",
                hint="Use --device cpu, or install PyTorch for your GPU",
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps: not available here", hint="Use --device cpu")
    return device


def settle_training(config: ComputeConfig) -> ComputeConfig:
    """Replace the precision ``auto`` by the one that a training uses here.

    Parameters
    ----------
    config : ComputeConfig
        The device and precision of the training.

    Returns
    -------
    ComputeConfig
        A copy whose precision is ``float32`` or ``bfloat16``.

    Raises
    ------
    ConfigError
        If PyTorch does not see the device.
    """
    dtype = choose_dtype(config, choose_device(config))
    return config.model_copy(update={"precision": str(dtype).removeprefix("torch.")})


def choose_dtype(config: ComputeConfig, device: torch.device) -> torch.dtype:
    """Resolve the configured precision of a training to a PyTorch type.

    ``auto`` is bfloat16 on GPUs that compute it fast and float32 on every CPU, so that
    CPUs of different kinds train the same weights. For the precision of a loaded
    encoder, see :func:`~napari_mcm.core.encoders.equivalence.settle_precision`.

    Parameters
    ----------
    config : ComputeConfig
        The precision of the training.
    device : torch.device
        The device it runs on.

    Returns
    -------
    torch.dtype
        ``torch.float32`` or ``torch.bfloat16``.

    Raises
    ------
    ConfigError
        If `AUTO_VARIABLE` holds an unknown precision.
    """
    import torch

    name: str = config.precision
    if name == "auto":
        mixed = device.type == "cuda" and has_fast_bfloat16(device)
        name = automatic_precision() or ("bfloat16" if mixed else "float32")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def automatic_precision() -> Literal["float32", "bfloat16"] | None:
    """Read the precision of ``auto`` from the environment.

    Returns
    -------
    {"float32", "bfloat16"} or None
        The value of `AUTO_VARIABLE`; None where it is not set.

    Raises
    ------
    ConfigError
        If the variable holds something else.
    """
    given = os.environ.get(AUTO_VARIABLE, "")
    if given in ("float32", "bfloat16"):
        return "float32" if given == "float32" else "bfloat16"
    if given:
        raise ConfigError(
            f"{AUTO_VARIABLE}={given}: not a precision",
            hint="Set it to float32 or bfloat16, or leave it out",
        )
    return None


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware multiplies bfloat16 natively.

    This checks the instructions themselves: oneDNN reports bfloat16 as supported on
    processors that emulate it many times slower than float32.

    Parameters
    ----------
    device : torch.device
        A device that is present.

    Returns
    -------
    bool
        True for GPUs from compute capability 8.0 and CPUs with AMX or AVX512-BF16.
    """
    import torch

    if device.type == "cuda":
        # Ampere is the first generation with bfloat16 in its tensor cores.
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        flags = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, flag, bool)() for flag in flags)
    return False
