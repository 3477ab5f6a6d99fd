"""Where and in which precision encoders compute."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from napari_mcm.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


AUTO_VARIABLE = "NAPARI_MCM_AUTO_PRECISION"
"""Environment variable that says what ``auto`` is, on this machine or on a cluster."""


class ComputeConfig(BaseModel):
    """Device and precision of the computation."""

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
"""Of tasks whose results are compared: float32 unless another precision is asked for."""


def choose_device(config: ComputeConfig) -> torch.device:
    """Turn the configured device into one that is there.

    Raises
    ------
    ConfigError
        If PyTorch does not see it.
    """
    import torch

    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        name = "mps" if name == "cpu" and torch.backends.mps.is_available() else name
    device = torch.device(name)
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise ConfigError(
                f"--device {name}: PyTorch sees {found} CUDA device(s)",
                hint="Use --device cpu, or install PyTorch for your GPU",
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps: not available here", hint="Use --device cpu")
    return device


def settle_training(config: ComputeConfig) -> ComputeConfig:
    """Give the same configuration with a training's precision stated.

    Raises
    ------
    ConfigError
        If PyTorch does not see the device.
    """
    dtype = choose_dtype(config, choose_device(config))
    return config.model_copy(update={"precision": str(dtype).removeprefix("torch.")})


def choose_dtype(config: ComputeConfig, device: torch.device) -> torch.dtype:
    """Turn the configured precision of a training into a number format.

    ``auto`` is bfloat16 on GPUs that compute it fast and float32 on every CPU, so that
    CPUs of different kinds train the same weights. For the precision of a loaded
    encoder, see :func:`~napari_mcm.core.encoders.equivalence.settle_precision`.
    """
    import torch

    name: str = config.precision
    if name == "auto":
        mixed = device.type == "cuda" and has_fast_bfloat16(device)
        name = automatic_precision() or ("bfloat16" if mixed else "float32")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def automatic_precision() -> Literal["float32", "bfloat16"] | None:
    """Read what ``auto`` shall be from the environment; None where nothing is said.

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
    """Tell whether hardware multiplies bfloat16, rather than software emulating it.

    Asks for the instructions themselves: oneDNN calls bfloat16 supported on processors
    that emulate it many times slower than float32.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        flags = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, flag, bool)() for flag in flags)
    return False
