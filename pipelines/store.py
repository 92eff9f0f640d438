"""Find a model folder, and refuse it by name before a single weight is loaded if it cannot serve.

A checkpoint is a diffusers folder of a PixArt pipeline. Beside its `model_index.json` may stand a
`variants.json`: several transformers (teacher, few-step, low-bit) over one VAE and text encoder:

    {"default": "teacher",
     "variants": {"teacher": {"folder": "transformer", "steps": 20, "bits": 32,
                              "guidance": 4.0, "guidance_rescale": 0.7,
                              "scheduler": "dpmpp",
                              "sha256": {"transformer/diffusion_pytorch_model.safetensors": "..."},
                              "regions": {"depth": "flat", "window": [0.0, 0.5]},
                              "parent": null, "method": "...", "data": "...", "metrics": {}}}}

`folder` and the paths under `sha256` are relative to the checkpoint. `regions` says how regions act
where a request does not; it may also stand beside `variants`, for all of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import CheckpointError, UnknownNameError
from pipelines.integrity import (
    content_hash,
    inside,
    measure_weights,
    packed_tensor,
    read_json,
    refuse_pickles,
    verify_digests,
    weight_files,
)
from pipelines.model_info import ModelInfo
from pipelines.noise_schedule import SCHEDULERS, check_noise_schedule
from pipelines.preview import find_preview
from pipelines.region_defaults import read_region_defaults
from pipelines.sizes import served_sizes
from quant.manifest import LOW_BIT, Manifest, read_manifest
from quant.precision import parse_precision

# The longest prompt that each pipeline class of diffusers passes on, in tokens with end mark.
_MAX_TOKENS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}

# Early PixArt folders name the transformer by the class that diffusers had then.
_CLASSES = {
    "transformer": ("PixArtTransformer2DModel", "Transformer2DModel"),
    "vae": ("AutoencoderKL", "AutoencoderDC"),
    "text_encoder": ("T5EncoderModel",),
    "tokenizer": ("T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"),
}

# What variants.json says of a variant's making, as far as it is passed on.
_ORIGIN = ("parent", "method", "data", "metrics", "sha256")

_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]
_HUB_TWINS = ["*.fp16.*", "*.bf16.*", "*.non_ema.*"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A folder that was found good.

    Attributes:
        info: What it holds.
        root: The folder.
        transformer: Folder of the chosen variant's transformer.
        vae_class: "AutoencoderKL" or "AutoencoderDC".
        preview: Folder of the small autoencoder of previews; None where the VAE decodes them.
        scheduler_config: The noise schedule it was trained with.
    """

    info: ModelInfo
    root: Path
    transformer: Path
    vae_class: str
    preview: Path | None
    scheduler_config: Mapping[str, object]


def open_checkpoint(path_or_hub: str | Path, *, variant: str | None = None) -> Checkpoint:
    """Find a model and check all that can be checked without loading it.

    Args:
        path_or_hub: A local folder, or a hub name such as "PixArt-alpha/PixArt-XL-2-512x512",
            which is downloaded (configurations and safetensors only) or taken from the hub's cache.
        variant: Which transformer; None takes the folder's default.

    Returns:
        Where the parts are and what they are. A folder that is missing, incomplete, damaged, of a
        class that is not served, inconsistent, or that holds a pickle, is a CheckpointError; a
        variant that it does not have an UnknownNameError.
    """
    root = locate(path_or_hub)
    pipeline_class = _check_index(root)
    refuse_pickles(root)
    names, chosen, entry = _choose_variant(root, variant)
    transformer = inside(root, str(entry["folder"]))
    configs = _check_configs(root, transformer)
    weights = weight_files(transformer, "diffusion_pytorch_model")
    num_parameters, bits = measure_weights(weights)
    if low_bit := _low_bit(transformer, configs["transformer"], weights):
        num_parameters, bits = low_bit.num_parameters, parse_precision(low_bit.precision).weights
    shared = _shared_weights(root)
    verify_digests(root, _mapping(root, entry, "sha256"))
    factor = _latent_factor(configs["vae"])
    sample_size, patch_size, latent_channels, num_layers = (
        _integer(transformer / "config.json", configs["transformer"], key)
        for key in ("sample_size", "patch_size", "in_channels", "num_layers")
    )
    info = ModelInfo(
        name=str(path_or_hub) if not Path(path_or_hub).is_dir() else root.resolve().name,
        variant=chosen,
        revision=content_hash(root, [*weights, *shared, *_plain_files(root, transformer)]),
        pipeline_class=pipeline_class,
        num_parameters=num_parameters,
        bits=_integer(root / "variants.json", entry, "bits", bits),
        default_steps=_integer(root / "variants.json", entry, "steps", 20),
        default_guidance=_number(root, entry, "guidance", 4.5),
        sizes=served_sizes(pipeline_class, sample_size, factor, patch_size),
        latent_channels=latent_channels,
        latent_factor=factor,
        num_layers=num_layers,
        region_defaults=read_region_defaults(root / "variants.json", entry, num_layers),
        max_tokens=_max_tokens(pipeline_class, configs["tokenizer"]),
        variants=names,
        default_scheduler=_scheduler(root, entry),
        default_guidance_rescale=_share(root, entry, "guidance_rescale"),
        origin={key: entry[key] for key in _ORIGIN if key in entry},
    )
    return Checkpoint(
        info=info,
        root=root,
        transformer=transformer,
        vae_class=str(configs["vae"]["_class_name"]),
        preview=find_preview(root, configs["vae"], factor),
        scheduler_config=configs["scheduler"],
    )


def locate(path_or_hub: str | Path) -> Path:
    """Return the local folder of a model, downloading it if the name is one of the hub's.

    Args:
        path_or_hub: A local folder or a hub name, "owner/name". A path whose first part is a
            folder here is never looked for on the hub.

    Returns:
        An existing folder.

    Raises:
        CheckpointError: If there is no such folder, and no such name on the hub or no way to it.
    """
    path = Path(path_or_hub).expanduser()
    if path.is_dir():
        return path
    name = str(path_or_hub)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) or Path(path.parts[0]).exists():
        raise CheckpointError(
            f"There is no folder {path}: give a diffusers folder, or a hub name as owner/name."
        )
    return _download(name)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_TWINS))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{name} is neither a folder here nor a model that could be fetched from the hub "
            f"({reason}): check the name and the network, or give a local folder."
        ) from error


def _check_index(root: Path) -> str:
    file = root / "model_index.json"
    if not file.is_file():
        raise CheckpointError(
            f"{root} has no model_index.json: give the folder that pipe.save_pretrained wrote, "
            "not one of its parts."
        )
    index = read_json(file)
    pipeline_class = str(index.get("_class_name"))
    if pipeline_class not in _MAX_TOKENS:
        raise CheckpointError(
            f"{file} names the class {pipeline_class}; served are {', '.join(_MAX_TOKENS)}."
        )
    for part, classes in _CLASSES.items():
        entry = index.get(part)
        if not isinstance(entry, list) or entry[-1] not in classes:
            raise CheckpointError(f"{file} has {entry} as {part}; served are {', '.join(classes)}.")
    for part in (*_CLASSES, "scheduler"):
        if not (root / part).is_dir():
            raise CheckpointError(
                f"{root / part} is missing: copy or download the checkpoint again."
            )
    return pipeline_class


def _choose_variant(
    root: Path, variant: str | None
) -> tuple[tuple[str, ...], str, dict[str, object]]:
    file = root / "variants.json"
    if not file.exists():
        if variant not in {None, "default"}:
            raise UnknownNameError("variant", str(variant), ["default"], param="variant")
        return ("default",), "default", {"folder": "transformer"}
    manifest = read_json(file)
    variants, default = _mapping(root, manifest, "variants"), manifest.get("default")
    if not isinstance(default, str) or default not in variants:
        raise CheckpointError(f"{file} has {default!r} as default, which is none of its variants.")
    chosen = variant or default
    if chosen not in variants:
        raise UnknownNameError("variant", chosen, variants, param="variant")
    entry = _mapping(root, variants, chosen)
    if not isinstance(entry.get("folder"), str):
        raise CheckpointError(f"{file} names no folder for the variant {chosen!r}.")
    shared = {"regions": manifest["regions"]} if "regions" in manifest else {}
    return (default, *(n for n in variants if n != default)), chosen, {**shared, **entry}


def _check_configs(root: Path, transformer: Path) -> dict[str, dict[str, object]]:
    configs = {
        "transformer": read_json(transformer / "config.json"),
        "vae": read_json(root / "vae" / "config.json"),
        "text_encoder": read_json(root / "text_encoder" / "config.json"),
        "tokenizer": read_json(root / "tokenizer" / "tokenizer_config.json"),
        "scheduler": read_json(root / "scheduler" / "scheduler_config.json"),
    }
    for part in ("transformer", "vae"):
        name = configs[part].get("_class_name")
        if name not in _CLASSES[part]:
            folder = transformer if part == "transformer" else root / part
            raise CheckpointError(
                f"{folder / 'config.json'} is of class {name}; served are "
                f"{', '.join(_CLASSES[part])}."
            )
    _agree(
        root, "latent channels", ("transformer", "in_channels"), ("vae", "latent_channels"), configs
    )
    _agree(
        root,
        "word width",
        ("transformer", "caption_channels"),
        ("text_encoder", "d_model"),
        configs,
    )
    check_noise_schedule(configs["scheduler"], root / "scheduler" / "scheduler_config.json")
    return configs


def _low_bit(
    transformer: Path, config: Mapping[str, object], weights: list[Path]
) -> Manifest | None:
    entry, file = config.get("quantization_config"), transformer / "config.json"
    if entry is None:
        if packed := packed_tensor(weights):
            raise CheckpointError(
                f"{file} has no quantization_config, but {packed} holds packed weights: copy or "
                "download the checkpoint again."
            )
        return None
    if not isinstance(entry, dict):
        raise CheckpointError(f"{file}: quantization_config is {entry!r:.60}, not an object.")
    if (method := entry.get("quant_method")) != LOW_BIT:
        raise CheckpointError(
            f"{file}: quantization_config.quant_method is {method!r}; served are float weights and "
            f"those of {LOW_BIT!r}, which fewstroke quantize writes."
        )
    return read_manifest(entry, str(file))


def _agree(
    root: Path,
    what: str,
    one: tuple[str, str],
    other: tuple[str, str],
    configs: Mapping[str, Mapping[str, object]],
) -> None:
    left, right = configs[one[0]].get(one[1]), configs[other[0]].get(other[1])
    if left != right:
        raise CheckpointError(
            f"{root}: {what} differ: the {one[0]} has {one[1]} {left}, the {other[0]} has "
            f"{other[1]} {right}. These parts were not trained together."
        )


def _latent_factor(vae: Mapping[str, object]) -> int:
    widths = vae.get("encoder_block_out_channels") or vae.get("block_out_channels")
    if not isinstance(widths, list) or not widths:
        raise CheckpointError("The VAE's config.json names no block_out_channels: save it again.")
    return 2 ** (len(widths) - 1)


def _max_tokens(pipeline_class: str, tokenizer: Mapping[str, object]) -> int:
    own = tokenizer.get("model_max_length")
    longest = _MAX_TOKENS[pipeline_class]
    return min(longest, int(own)) if isinstance(own, int | float) and own > 0 else longest


def _shared_weights(root: Path) -> list[Path]:
    files = [
        *weight_files(root / "vae", "diffusion_pytorch_model"),
        *weight_files(root / "text_encoder", "model"),
    ]
    measure_weights(files)
    return files


def _plain_files(root: Path, transformer: Path) -> list[Path]:
    folders = [
        transformer,
        *(root / part for part in ("vae", "text_encoder", "tokenizer", "scheduler")),
    ]
    names = {"config.json", "scheduler_config.json"}
    return [root / "model_index.json"] + [
        file
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.is_file() and (file.name in names or folder.name == "tokenizer")
    ]


def _scheduler(root: Path, entry: Mapping[str, object]) -> str:
    name = entry.get("scheduler", "dpmpp")
    if name not in SCHEDULERS:
        raise CheckpointError(
            f"{root / 'variants.json'} has {name!r} as scheduler; known: {', '.join(SCHEDULERS)}."
        )
    return str(name)


def _mapping(root: Path, entry: Mapping[str, object], key: str) -> dict[str, object]:
    value = entry.get(key, {})
    if not isinstance(value, dict):
        raise CheckpointError(f"{root / 'variants.json'} has {value!r} as {key}: give an object.")
    return value


def _integer(file: Path, entry: Mapping[str, object], key: str, default: int | None = None) -> int:
    value = entry.get(key, default)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{file} has {value!r} as {key}: give a whole number above 0.")
    return value


def _share(root: Path, entry: Mapping[str, object], key: str) -> float:
    value = entry.get(key, 0.0)
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise CheckpointError(
            f"{root / 'variants.json'} has {value!r} as {key}: give a number from 0 to 1."
        )
    return float(value)


def _number(root: Path, entry: Mapping[str, object], key: str, default: float) -> float:
    value = entry.get(key, default)
    if not isinstance(value, int | float) or not 1.0 <= value <= 30.0:
        raise CheckpointError(
            f"{root / 'variants.json'} has {value!r} as {key}: give a number from 1 to 30."
        )
    return float(value)
