"""Scenes on disk: latents in shards, with several captions each.

Rendering and encoding a scene costs as much as training on it, so both are done once; captions are
redrawn from the stored wordings at every visit. Beside each latent lies its layout: what stands in
each of its transformer's tokens. The folder is named by the encoder and the world that made it, so
latents of others are never mixed in; asking for more scenes adds shards and keeps the old ones.
"""

import hashlib
import json
from collections.abc import Mapping
from copy import copy
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderDC, AutoencoderKL

from core.devices import autocast
from core.errors import InputError
from core.folders import make_folder
from core.progress import Report, progress
from core.seeding import numpy_generator
from scenes.captions import Level, caption
from scenes.compose import Scene, Split, render, sample_scene
from scenes.layout import layout
from scenes.sprites import SpriteSheet
from training.autoencoder import latent_of, to_tensor
from training.method import Batch

ENCODE_BATCH = 16
WORLD_SCENES = 64
LAYOUT_CELLS = 8  # a side: one cell per token of a 16 x 16 latent in patches of 2

# How often training meets each stored wording; what is missing to 1 is the empty caption, which
# teaches the unconditional branch of classifier-free guidance.
WORDING_SHARES: tuple[tuple[Level, float], ...] = (
    ("full", 0.26),
    ("full", 0.26),
    ("full", 0.26),
    ("high", 0.07),
    ("low", 0.05),
)


class LatentSource:
    """Batches of latents with captions and layouts, drawn with replacement.

    Args:
        folder: Folder of shards, as written by `encode_scenes`.
        num_scenes: How many scenes to draw from.
        batch_size: Samples a batch.
        seed: Seed of the draws.
        shard_scenes: Scenes a shard, as they were encoded.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_scenes: int,
        batch_size: int,
        seed: int = 0,
        shard_scenes: int = 2000,
    ) -> None:
        shards = range(-(-num_scenes // shard_scenes))
        self._latents = [np.load(folder / f"{shard:04d}.npy", mmap_mode="r") for shard in shards]
        self._layouts = [np.load(folder / f"{shard:04d}.layout.npy") for shard in shards]
        self._captions = [_read_captions(folder / f"{shard:04d}.jsonl") for shard in shards]
        self._num_scenes, self.batch_size, self._seed = num_scenes, batch_size, seed
        self._shard_scenes = shard_scenes

    def __call__(self, step: int) -> Batch:
        """Return the latents, captions and layouts of a step, and the seeds of their scenes.

        Args:
            step: From 0.
        """
        rng = numpy_generator(self._seed, "latents", step)
        rows = rng.integers(self._num_scenes, size=self.batch_size)
        shares = np.array([share for _, share in WORDING_SHARES])
        wordings = np.searchsorted(np.cumsum(shares), rng.random(self.batch_size), side="right")
        places = [divmod(int(row), self._shard_scenes) for row in rows]
        latents = np.stack([self._latents[shard][index] for shard, index in places])
        layouts = np.stack([self._layouts[shard][index] for shard, index in places])
        captions = [
            "" if wording == len(WORDING_SHARES) else self._captions[shard][index][wording]
            for (shard, index), wording in zip(places, wordings, strict=True)
        ]
        return {
            "latents": torch.from_numpy(latents).float(),
            "layouts": torch.from_numpy(layouts).long(),
            "captions": captions,
            "seeds": torch.from_numpy(rows),
        }

    def with_batch_size(self, batch_size: int) -> "LatentSource":
        """Return a source of the same scenes in batches of another size.

        Args:
            batch_size: Samples a batch.
        """
        other = copy(self)
        other.batch_size = batch_size
        return other

    def standard_deviation(self) -> float:
        """Return the spread of the first shard's latents, for the scaling factor."""
        return float(np.asarray(self._latents[0], np.float32).std())


def encode_scenes(
    autoencoder: AutoencoderDC | AutoencoderKL,
    sheet: SpriteSheet,
    folder: Path,
    *,
    num_scenes: int,
    device: torch.device,
    shard_scenes: int = 2000,
    split: Split = "train",
    processes: PartialState | None = None,
) -> Path:
    """Draw scenes, encode them, keep latents, captions, layouts; skip what is there.

    Args:
        autoencoder: The trained autoencoder; its encoder's weights name the folder.
        sheet: Where sprites come from.
        folder: Where the shards' folder is made.
        num_scenes: Scenes in all, at least 1.
        device: Where to encode.
        shard_scenes: Scenes a shard, a multiple of 16.
        split: Which scenes; models that paint learn from "train" alone.
        processes: Those that call this together and share the shards out; None for one alone.

    Returns:
        The folder of this encoder's shards.

    Raises:
        InputError: If num_scenes is below 1.
    """
    if num_scenes < 1:
        raise InputError(f"num_scenes must be at least 1, not {num_scenes}.", param="num_scenes")
    autoencoder = autoencoder.eval().requires_grad_(requires_grad=False).to(device)
    other = "" if split == "train" else f"-{split}"
    home = folder / f"{encoder_name(autoencoder)}-{world_name(sheet)}{other}"
    make_folder(home, param="latents")
    rank, count = (processes.process_index, processes.num_processes) if processes else (0, 1)
    missing = [
        shard
        for shard in range(-(-num_scenes // shard_scenes))
        if not (home / f"{shard:04d}.npy").exists()
    ]
    if processes:
        processes.wait_for_everyone()  # all have seen the same shards missing
    share = missing[rank::count]
    with progress(
        "Encoding scenes",
        total=len(share) * shard_scenes // ENCODE_BATCH,
        unit=f"batches of {ENCODE_BATCH}",
        stream=None if rank == 0 else StringIO(),  # one process speaks for all
    ) as report:
        for shard in share:
            seeds = range(shard * shard_scenes, (shard + 1) * shard_scenes)
            scenes = {seed: sample_scene(seed, split=split, sheet=sheet) for seed in seeds}
            _encode_shard(autoencoder, sheet, home / f"{shard:04d}", scenes, report)
    if processes:
        processes.wait_for_everyone()
    return home


def _encode_shard(
    autoencoder: AutoencoderDC | AutoencoderKL,
    sheet: SpriteSheet,
    name: Path,
    scenes: Mapping[int, Scene],
    report: Report,
) -> None:
    device = next(autoencoder.parameters()).device
    latents: list[np.ndarray] = []
    layouts: list[np.ndarray] = []
    drawn = list(scenes.values())
    for start in range(0, len(drawn), ENCODE_BATCH):
        several = drawn[start : start + ENCODE_BATCH]
        pixels = to_tensor(np.stack([render(scene, sheet) for scene in several])).to(device)
        with torch.inference_mode(), autocast(device, "auto"):
            latent = latent_of(autoencoder, pixels)
        latents.append(latent.cpu().numpy().astype(np.float16))
        layouts += [layout(scene, sheet, num_cells=LAYOUT_CELLS) for scene in several]
        report.advance()
    captions = [_wordings(scene, seed) for seed, scene in scenes.items()]
    # The latents come last and by renaming: a shard is there when its .npy is.
    lines = "".join(json.dumps(wordings) + "\n" for wordings in captions)
    name.with_suffix(".jsonl").write_text(lines)
    np.save(name.with_suffix(".layout.npy"), np.stack(layouts))
    fresh = name.with_suffix(".new.npy")
    np.save(fresh, np.concatenate(latents))
    fresh.replace(name.with_suffix(".npy"))


def _wordings(scene: Scene, seed: int) -> list[str]:
    rng = numpy_generator(seed, "captions")
    return [caption(scene, level, rng) for level, _ in WORDING_SHARES]


def _read_captions(path: Path) -> list[list[str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def encoder_name(autoencoder: AutoencoderDC | AutoencoderKL) -> str:
    """Return the name that latents of an autoencoder go by: a digest of its encoder's weights.

    Args:
        autoencoder: Its decoder may learn on, the name stays.
    """
    digest = hashlib.sha256()
    for name, weight in autoencoder.encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def world_name(sheet: SpriteSheet) -> str:
    """Return the name of the world that scenes are drawn from: a digest of some of its scenes.

    Whoever changes words, shares, sizes or captions gets another name, unless none of them shows in
    WORLD_SCENES scenes.

    Args:
        sheet: Where sprites come from.
    """
    digest = hashlib.sha256()
    for seed in range(WORLD_SCENES):
        scene = sample_scene(seed, split="train", sheet=sheet)
        digest.update(repr((scene, _wordings(scene, seed))).encode())
    return digest.hexdigest()[:8]
