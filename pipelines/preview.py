"""The small autoencoder that previews are decoded by, where a checkpoint brings one.

Any AutoencoderTiny that speaks the VAE's latents will do: of the hub's, "madebyollin/taesd" for
PixArt's. It decides no pixel of a finished picture, so it is no part of a model's revision.
"""

from collections.abc import Mapping
from pathlib import Path

from core.errors import CheckpointError
from pipelines.integrity import measure_weights, read_json, weight_files

FOLDER = "preview_vae"
CLASS = "AutoencoderTiny"


def find_preview(root: Path, vae: Mapping[str, object], latent_factor: int) -> Path | None:
    """Return the folder of a checkpoint's small autoencoder, after a look at its files.

    Args:
        root: The checkpoint.
        vae: Configuration of its VAE.
        latent_factor: Pixels along an edge for one latent cell.

    Returns:
        The folder; None if the checkpoint has none, and previews take the VAE.

    Raises:
        CheckpointError: If it is there and is of another class, or speaks other latents.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        return None
    file = folder / "config.json"
    config = read_json(file)
    if config.get("_class_name") != CLASS:
        raise CheckpointError(
            f"{file} is of class {config.get('_class_name')}; previews are decoded by {CLASS}. "
            f"Remove {folder}, and the VAE decodes them."
        )
    measure_weights(weight_files(folder, "diffusion_pytorch_model"))
    widths = config.get("decoder_block_out_channels")
    spoken = {
        "latent_channels": (config.get("latent_channels"), vae.get("latent_channels")),
        "latent factor": (
            2 ** (len(widths) - 1) if isinstance(widths, list) else None,
            latent_factor,
        ),
    }
    for what, (small, big) in spoken.items():
        if small != big:
            raise CheckpointError(
                f"{file} has {small} as {what}, the VAE {big}: they were not trained together. "
                f"Remove {folder}, and the VAE decodes previews."
            )
    return folder
