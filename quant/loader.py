"""Lets stock diffusers load low-bit folders: import this module, then call `from_pretrained`.

diffusers has no entry point for quantizers of others; its two tables are written to on import,
which is this module's whole purpose. Nothing here, nor below it, trains.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any
from weakref import ref

import torch
from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from torch import Tensor, nn

from core.errors import CheckpointError
from quant.layers import PackedLayer
from quant.manifest import LOW_BIT, Manifest, read_manifest
from quant.store import (
    check_headers,
    check_names,
    check_size,
    float_checksum,
    float_tensors,
    is_stored_part,
    pack_in_place,
    packed_layers,
    read_headers,
    set_tensor,
    verify_floats,
    verify_layers,
)


class LowBitMethod(StrEnum):
    """The name under which diffusers finds us; it asks the name for its `value`."""

    FEWSTROKE = LOW_BIT


class LowBitConfig(QuantizationConfigMixin):  # type: ignore[misc]  # diffusers is untyped
    """The `quantization_config` of a low-bit transformer.

    What stays in float may be cast or changed after loading, so its checksum is taken when it is
    written.

    Args:
        entry: Everything that config.json holds.
    """

    def __init__(self, /, **entry: object) -> None:
        self.quant_method = LowBitMethod(str(entry.pop("quant_method", LOW_BIT)))
        self.entry = entry
        self._network: Callable[[], nn.Module | None] = lambda: None

    def describe(self, network: nn.Module) -> None:
        """Take the checksum of what stays in float from a network, as long as it is there.

        Args:
            network: With packed layers.
        """
        self._network = ref(network)

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds."""
        entry = {"quant_method": self.quant_method.value, **self.entry}
        if (network := self._network()) is not None:
            stated = read_manifest(self.entry, "config.json").stated()
            entry["checksum"] = f"{float_checksum(stated, float_tensors(network)):08x}"
        return entry

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the same: there are no usual values to leave out."""
        return self.to_dict()


class LowBitQuantizer(DiffusersQuantizer):  # type: ignore[misc]  # diffusers is untyped
    """Loads what `write_low_bit` wrote, and refuses by file and field what is not that.

    Args:
        quantization_config: What config.json said.
        kwargs: Passed on.
    """

    requires_calibration = True
    use_keep_in_fp32_modules = False

    def __init__(self, quantization_config: LowBitConfig, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(quantization_config, **kwargs)
        self._where = "config.json"
        self._files: list[Path] = []
        self._layers: dict[str, PackedLayer] = {}

    def maybe_update_loaded_keys(
        self, loaded_keys: list[str], checkpoint_files: list[str]
    ) -> list[str]:
        """Note which files are about to be read."""
        self._files = [Path(file) for file in checkpoint_files]
        self._where = str(self._files[0].parent / "config.json")
        return loaded_keys

    def _process_model_before_weight_loading(self, model: nn.Module, **_: object) -> nn.Module:
        manifest = read_manifest(self.quantization_config.entry, self._where)
        check_size(model, manifest, self._where)
        pack_in_place(model, manifest, self._where)
        self._layers = packed_layers(model)
        found = read_headers(self._files)
        check_headers(found, self._layers, self._where)
        check_names(self._files, found, model)
        verify_floats(found, self._layers, manifest, self._where)
        return model

    def _process_model_after_weight_loading(self, model: nn.Module, **_: object) -> nn.Module:
        verify_layers(self._layers, self._where)
        self.quantization_config.describe(model)
        return model

    def check_if_quantized_param(
        self, model: nn.Module, param_value: Tensor, param_name: str, *_: object, **__: object
    ) -> bool:
        """Claim the tensors of packed layers, which must keep the dtype of the file."""
        del model, param_value
        return is_stored_part(self._layers, param_name)

    def create_quantized_param(
        self,
        model: nn.Module,
        param_value: Tensor,
        param_name: str,
        target_device: torch.device | str | int,
        state_dict: Mapping[str, Tensor],
        *_: object,
        **__: object,
    ) -> None:
        """Take a tensor over as the file holds it; `param_value` may have been cast."""
        del param_value
        set_tensor(model, param_name, state_dict[param_name], target_device)

    @property
    def is_serializable(self) -> bool:
        """A loaded model can be saved again."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Codes do not learn; the trainer works on their float form."""
        return False


def write_low_bit(
    transformer: Any,  # noqa: ANN401 - a diffusers model
    manifest: Manifest,
    folder: Path,
    *,
    max_shard_size: str | int = "10GB",
) -> None:
    """Save a transformer whose layers are packed, so that stock diffusers can load it.

    Args:
        transformer: A diffusers model with packed layers.
        manifest: What it says about itself.
        folder: Where to.
        max_shard_size: Largest file, in bytes or as "5GB".

    Raises:
        CheckpointError: If manifest and network name different layers, or the manifest holds what
            could not be read again, such as an unknown method.
    """
    layers = packed_layers(transformer)
    if layers.keys() != manifest.layers.keys():
        odd = sorted(layers.keys() ^ manifest.layers.keys())
        raise CheckpointError(f"Manifest and network disagree about the layers {odd}.")
    entry: dict[str, Any] = manifest.to_dict()
    read_manifest(entry, str(folder / "config.json"))  # what is written must be readable
    config = LowBitConfig(**entry)
    config.describe(transformer)
    transformer.register_to_config(quantization_config=config)
    transformer.hf_quantizer = LowBitQuantizer(config)
    transformer.save_pretrained(folder, safe_serialization=True, max_shard_size=max_shard_size)
    if not (folder / "config.json").is_file():  # diffusers logs that it wrote nothing, and goes on
        raise CheckpointError(f"Nothing could be written to {folder}: is it a file?")


AUTO_QUANTIZER_MAPPING[LowBitMethod.FEWSTROKE.value] = LowBitQuantizer
AUTO_QUANTIZATION_CONFIG_MAPPING[LowBitMethod.FEWSTROKE.value] = LowBitConfig
