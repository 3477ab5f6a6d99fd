"""One function that loads encoders from every kind of weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from napari_mcm.core.encoders.compute import ComputeConfig, choose_device
from napari_mcm.core.encoders.encoder import Encoder, to_channels_last
from napari_mcm.core.encoders.equivalence import settle_precision
from napari_mcm.core.encoders.recipe import (
    RECIPE_FILE,
    WEIGHTS_FILE,
    Recipe,
    read_recipe,
)
from napari_mcm.core.encoders.seeding import seeded
from napari_mcm.core.encoders.sources import PREFIX as OFFLINE_PREFIX
from napari_mcm.core.encoders.sources import (
    is_timm_name,
    load_offline,
    load_pretrained,
    pretrained_config,
)
from napari_mcm.core.errors import WeightsError
from napari_mcm.core.runtime.jobs import Job, Note
from napari_mcm.core.runtime.run_verbs import (
    ENCODER_VERBS,
    resume_command,
    verb_of_run,
)
from napari_mcm.core.runtime.threads import run_in_thread

RANDOM_PREFIX = "random:"


def load_encoder(
    spec: str | Path,
    compute: ComputeConfig | None = None,
    random_weights_seed: int | None = None,
) -> Encoder:
    """Load a patch encoder by its name, file or run folder.

    Parameters
    ----------
    spec : str or Path
        A timm name (``resnet18``, ``hf-hub:org/name``); ``offline:efficientnet_lite0``,
        1 or 2, whose weights come in packages; a run directory; an encoder's directory
        (``model.safetensors`` and ``recipe.json``); a ``.safetensors`` file with
        ``recipe.json`` beside it; ``random:resnet18``, with random weights.
    compute : ComputeConfig, optional
        Device and precision. Its threads are set for the calling thread. The precision
        ``auto`` is measured the first time, which takes seconds.
    random_weights_seed : int, optional
        Seed of random weights, 0 by default.

    Returns
    -------
    Encoder
        In eval mode, on the device.

    Raises
    ------
    WeightsError
        If the weights are missing, damaged or of another shape.
    ConfigError
        If the device is not available.
    """
    compute = compute or ComputeConfig()
    device = choose_device(compute)
    if compute.threads:
        torch.set_num_threads(compute.threads)
    module, recipe = _build(str(spec), random_weights_seed or 0)
    module = to_channels_last(module.eval().to(device))
    encoder = Encoder(
        module=module,
        architecture=recipe.architecture,
        spec=str(spec),
        dim=_output_dim(module, recipe, device, str(spec)),
        mean=recipe.preprocessing.mean,
        std=recipe.preprocessing.std,
        input_size=recipe.preprocessing.input_size,
        fingerprint=fingerprint(module, recipe),
        recipe=recipe.plain(),
        device=device,
        dtype=torch.float32,
    )
    if compute.precision == "auto":
        return settle_precision(encoder)
    return encoder.in_precision(compute.precision)


def load_encoders(
    specs: Sequence[str | Path], compute: ComputeConfig
) -> Job[list[Encoder]]:
    """Load encoders as a job, which can be cancelled while weights are fetched.

    Parameters
    ----------
    specs : sequence of str or Path
        As :func:`load_encoder` takes them.
    compute : ComputeConfig
        Device and precision.

    Yields
    ------
    Event
        Progress, and a note where the precision was measured.

    Returns
    -------
    list of Encoder
        In the order of `specs`.
    """
    encoders = []
    for spec in specs:
        encoder = yield from run_in_thread(
            "Loading the encoder", load_encoder, spec, compute
        )
        if encoder.precision_note:
            yield Note(encoder.precision_note)
        encoders.append(encoder)
    if compute.threads:
        # load_encoder set them for its own thread only.
        torch.set_num_threads(compute.threads)
    return encoders


def _build(spec: str, seed: int) -> tuple[nn.Module, Recipe]:
    if not spec.strip():
        raise WeightsError("no encoder given", hint="Give a timm name, a run or a file")
    if spec.startswith(OFFLINE_PREFIX):
        module, source = load_offline(spec.removeprefix(OFFLINE_PREFIX))
        return module, _own_recipe(module, source)
    if spec.startswith(RANDOM_PREFIX):
        return _build_random(spec.removeprefix(RANDOM_PREFIX), seed)
    if not is_timm_name(spec) and _looks_like_path(spec):
        return _build_from_file(_weights_file(Path(spec).expanduser()))
    module, source = load_pretrained(spec)
    return module, _own_recipe(module, source)


def _looks_like_path(spec: str) -> bool:
    return "/" in spec or spec.endswith(".safetensors") or Path(spec).exists()


def _build_random(name: str, seed: int) -> tuple[nn.Module, Recipe]:
    if not timm.is_model(name):
        raise WeightsError("timm knows no such model", RANDOM_PREFIX + name)
    with seeded(seed):
        module = timm.create_model(name, num_classes=0)
    return module, _own_recipe(module, {"weights": f"random, seed {seed}"})


def _own_recipe(module: nn.Module, source: dict[str, Any]) -> Recipe:
    """Make the recipe of a model from its weights' own configuration.

    Raises
    ------
    WeightsError
        If the configuration is not understood.
    """
    own = pretrained_config(module)
    data = resolve_model_data_config(module)  # type: ignore[no-untyped-call]
    bilinear = data["interpolation"] == "bilinear"
    try:
        return Recipe(
            architecture=own["architecture"],
            preprocessing={
                "mean": data["mean"],
                "std": data["std"],
                "input_size": data["input_size"][-1]
                if own["fixed_input_size"]
                else None,
                "interpolation": "bilinear" if bilinear else "bicubic",
            },
            **source,
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise WeightsError(
            f"configuration of the weights is not understood ({problem['msg']})",
            source["weights"],
        ) from error


def _weights_file(path: Path) -> Path:
    """Find the weights in a run, in an encoder's directory, or as a file.

    Raises
    ------
    WeightsError
        If there are none.
    """
    if not path.exists():
        raise WeightsError("no such file or folder", path, "Check the path")
    if path.is_dir():
        folder = path / "encoder" if (path / "encoder").is_dir() else path
        if not (folder / WEIGHTS_FILE).is_file():
            missing = _missing_encoder(path)
            raise missing
        return folder / WEIGHTS_FILE
    if path.suffix != ".safetensors":
        raise WeightsError(
            "is not a .safetensors file",
            path,
            "Other formats can carry code and are not read",
        )
    return path


def _missing_encoder(path: Path) -> WeightsError:
    """Explain why a folder has no encoder."""
    verb = verb_of_run(path)
    if not verb:
        return WeightsError(
            f"holds no encoder ({WEIGHTS_FILE} and {RECIPE_FILE})", path
        )
    if (path / "summary.json").is_file() or verb not in ENCODER_VERBS:
        return WeightsError(f"is a run of {verb} that holds no encoder", path)
    return WeightsError(
        "run is not finished and has no encoder",
        path,
        f"Finish it with: {resume_command(path)}",
    )


def _build_from_file(file: Path) -> tuple[nn.Module, Recipe]:
    recipe = read_recipe(file.parent / RECIPE_FILE)
    state = _read_tensors(file)
    if not timm.is_model(recipe.architecture):
        raise WeightsError(
            f"its model {recipe.architecture} is unknown to timm {timm.__version__}",
            file,
            "Update timm",
        )
    arguments: dict[str, Any] = dict(recipe.model_args)
    try:
        module = timm.create_model(recipe.architecture, num_classes=0, **arguments)
    # Arguments from a file reach constructors of any kind.
    except Exception as error:  # noqa: BLE001
        raise WeightsError(
            f"the recipe's model {recipe.architecture} cannot be built ({error})", file
        ) from error
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).split("\n")[1:2] or [str(error)]
        raise WeightsError(
            f"does not fit timm's {recipe.architecture} ({first[0].strip()})",
            file,
            "Its tensors must have timm's names, without a classifier",
        ) from error
    return module, recipe


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except OSError as error:
        raise WeightsError(
            f"cannot be read ({error.strerror or error})",
            file,
            "Check that it is there, and its permissions",
        ) from error
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"is damaged ({error})", file, "Copy it again") from error


def _output_dim(
    module: nn.Module, recipe: Recipe, device: torch.device, spec: str
) -> int:
    # Measured, not read from timm: pooling and heads change the length.
    side = recipe.preprocessing.input_size or 64
    with torch.inference_mode():
        output = module(torch.zeros(1, 3, side, side, device=device))
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise WeightsError(f"{recipe.architecture} does not pool to one vector", spec)
    return output.shape[1]


def fingerprint(module: nn.Module, recipe: Recipe) -> str:
    """Hash an encoder's weights, architecture and preprocessing.

    The origin of the weights, their licence and their training do not count: two copies
    of the same weights are the same encoder.

    Parameters
    ----------
    module : nn.Module
        The model with its weights.
    recipe : Recipe
        Its architecture and preprocessing.

    Returns
    -------
    str
        16 hex digits.
    """
    what = recipe.model_dump(
        mode="json", include={"architecture", "model_args", "preprocessing"}
    )
    digest = hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # Plain bytes, as numpy has no bfloat16.
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return digest.hexdigest()
