"""Where and in what precision networks are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


class ComputeConfig(BaseModel):
    """Device and precision. They change speed, and results by rounding only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = Field(
        "auto", description="auto, cpu, cuda, cuda:N or mps; auto takes a GPU if any."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="auto is bfloat16 where the hardware computes it fast, else float32.",
    )


def resolve_device(config: ComputeConfig) -> torch.device:
    """Turn the configured device into one that is there.

    Raises
    ------
    ConfigError
        If there is no such device.
    """
    import torch

    if config.device == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        kind = "mps" if torch.backends.mps.is_available() else kind
        return torch.device(kind)
    try:
        device = torch.device(config.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {config.device} cannot be used ({reason})",
            hint="Choose --device auto or cpu",
        ) from None
    return device


def resolve_dtype(config: ComputeConfig, device: torch.device) -> torch.dtype:
    """Settle the precision.

    Without hardware for it bfloat16 is emulated, and several times slower than float32:
    a CPU needs AMX or AVX-512 BF16, a GPU of NVIDIA's compute capability 8.0.
    """
    import torch

    if config.precision != "auto":
        return torch.float32 if config.precision == "float32" else torch.bfloat16
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        has = torch.cpu.get_capabilities()
        fast = bool(has.get("amx_bf16") or has.get("avx512_bf16"))
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32
