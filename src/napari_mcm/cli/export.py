"""Write an encoder for other tools.

TorchScript, torch.export and ONNX files take RGB patches from 0 to 1 and normalise
them themselves. timm.create_model("local-dir:FOLDER", pretrained=True) loads the
folder for a model hub. The result is loaded again and compared with the encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.errors import ConfigError


class ExportOptions(BaseModel):
    """The encoder to export, the format and the folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str | None = Field(
        None, description="A run, an encoder's folder, or a timm name."
    )
    to: Literal["torchscript", "torch-export", "onnx", "hf-hub"] = Field(
        "hf-hub", description="Format to write."
    )
    out: Path | None = Field(None, description="Folder to write to.")
    side: int | None = Field(
        None,
        ge=16,
        le=4096,
        description="Side of patches in pixels; by default that of its fine-tuning, "
        "else 224.",
    )


OPTIONS, POSITIONAL = ExportOptions, "encoder"


def run(options: ExportOptions) -> Outcome:
    """Write the encoder and compare the result with it."""
    from napari_mcm.core.encoders import ComputeConfig, load_encoder
    from napari_mcm.core.encoders.export import export_encoder

    if options.encoder is None:
        raise ConfigError("no encoder given")
    if options.out is None:
        raise ConfigError("no folder given", hint="Choose one with --out")
    compute = ComputeConfig(device="cpu", precision="float32")
    encoder = load_encoder(options.encoder, compute)
    done = export_encoder(encoder, options.to, options.out, options.side or 0)
    result = {"path": done.path, "side": done.side, "difference": done.difference}
    rows = [
        ("written", str(done.path)),
        ("takes", f"patches of {done.side} px"),
        ("differs by", f"{done.difference:.1g} of the features' range"),
    ]
    return Outcome(result, table(rows))
