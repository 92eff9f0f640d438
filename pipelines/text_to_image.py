"""Text to image, top-down: words, noise, denoising, pixels. Read this first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from core.errors import DeviceMemoryError, GenerationCancelledError, NumericsError
from core.seeding import torch_generator
from pipelines.accelerate.choose import make_networks
from pipelines.accelerate.networks import Networks, TorchNetworks
from pipelines.checks import check_spec
from pipelines.components import Components, load_components
from pipelines.conditioning import PromptEncoder
from pipelines.forward import Forward
from pipelines.guidance import Guide
from pipelines.heard import Heard, Listener
from pipelines.invariance import keep_rows_apart
from pipelines.model_info import ModelInfo
from pipelines.regional_forms import Form, MixerMaker
from pipelines.schedulers import check_steps, make_scheduler
from pipelines.spec import GenerationResult, GenerationSpec
from pipelines.step_cache import StepCache
from pipelines.store import Checkpoint, open_checkpoint


class TextToImage:
    """One model on one device.

    Args:
        checkpoint: Where the model came from.
        parts: Its networks.
        num_rows: Pictures that go through a network together. At 1 a picture is the same to the
            last bit whatever it is asked for with; more is faster on a GPU, where sums may then be
            taken in another order. None takes what suits the backend: 1 for torch on the CPU.
        form: How regional attention is computed; every form gives the same.
        networks: What computes it; None takes the parts as they are.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        parts: Components,
        *,
        num_rows: int | None = None,
        form: Form | MixerMaker = "auto",
        networks: Networks | None = None,
    ) -> None:
        self.info: ModelInfo = checkpoint.info
        self.networks = networks or TorchNetworks(parts, checkpoint.info.latent_factor)
        self.num_rows = num_rows or self.networks.num_rows
        self.noise_schedule = checkpoint.scheduler_config
        self.parts = parts
        # A request for ten pictures asks the same ten times, on the server's event loop.
        self._check_steps = partial(check_steps, self.noise_schedule)
        self.words = PromptEncoder(
            parts.tokenizer, self.networks.encode, count=self.networks.execution.count
        )
        self._listener = Listener(parts, self.words, checkpoint.info.latent_factor, form=form)
        self._forward = Forward(self.networks, parts.transformer.config["patch_size"])
        if parts.device.type == "cpu":
            keep_rows_apart(parts.transformer)

    @classmethod
    def load(
        cls,
        path_or_hub: str | Path,
        *,
        variant: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        num_rows: int | None = None,
        backend: str = "torch",
        cache_dir: str | Path | None = None,
    ) -> "TextToImage":
        """Open a checkpoint and load it.

        Args:
            path_or_hub: A local diffusers folder of a PixArt pipeline, or a hub name.
            variant: Which of its transformers; None takes the folder's default.
            device: "cpu", "cuda", "cuda:1", "mps"; None takes the fastest that is there.
            dtype: "float32" or "bfloat16"; None takes bfloat16 on CUDA and float32 elsewhere.
            num_rows: Pictures that go through a network together, as the class says.
            backend: What computes the networks: a name in `BACKENDS`, or "auto" for the fastest
                that is installed and stays within a ten thousandth of torch.
            cache_dir: Where compiled networks are kept for the next start; None keeps none.

        Returns:
            The model, ready to paint. What is wrong with the folder, the device or the names is
            raised as `open_checkpoint` and `load_components` say.
        """
        checkpoint = open_checkpoint(path_or_hub, variant=variant)
        parts = load_components(checkpoint, device=device, dtype=dtype)
        networks = make_networks(backend, checkpoint.info, parts, cache_dir=cache_dir)
        return cls(checkpoint, parts, num_rows=num_rows, networks=networks)

    def check(self, spec: GenerationSpec) -> None:
        """Refuse, before any work, what this model would paint otherwise than asked.

        Args:
            spec: What is asked for. The InputError that is raised names the field at fault.
        """
        check_spec(spec, self.info, self._check_steps, self.words.count_tokens)

    def generate(
        self,
        specs: Sequence[GenerationSpec],
        *,
        on_step: Callable[[int, int], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> list[GenerationResult]:
        """Paint pictures, each from its own words and its own noise.

        Args:
            specs: One per picture; they may differ in everything. Those of equal size, steps,
                scheduler and use of guidance advance together.
            on_step: Called after every step with the steps done and the steps in all.
            is_cancelled: Asked before every step whether anyone still waits.

        Returns:
            The pictures, in the order they were asked for.

        Raises:
            DeviceMemoryError: If the pictures do not fit on the device together.
        """
        for spec in specs:
            self.check(spec)
        batches = _group(specs)
        clock = StepClock(sum(batch.num_steps for batch in batches), on_step, is_cancelled)
        results: dict[int, GenerationResult] = {}
        try:
            with torch.inference_mode():
                for batch in batches:
                    results.update(zip(batch.places, self._paint(batch, clock), strict=True))
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"{len(specs)} pictures do not fit on {self.parts.device} together: ask for fewer."
            ) from error
        return [results[place] for place in range(len(specs))]

    def _paint(self, batch: "Batch", clock: "StepClock") -> list[GenerationResult]:
        started = self._now()
        heard = [self.prepare(spec) for spec in batch.specs]
        encoded = self._now()
        latents = self.denoise(batch, heard, self.draw_noise(batch), clock)
        denoised = self._now()
        images = self.decode(latents)
        timings_s = {
            "encode": encoded - started,
            "denoise": denoised - encoded,
            "decode": self._now() - denoised,
        }
        return [
            GenerationResult(
                image=image,
                spec=spec,
                model=self.info.name,
                revision=self.info.revision,
                backend=self.networks.execution.backend,
                timings_s=timings_s,
            )
            for image, spec in zip(images, batch.specs, strict=True)
        ]

    def draw_noise(self, batch: "Batch") -> Float[Tensor, "b c h w"]:
        """Draw each picture's noise from a generator of its own.

        Args:
            batch: Pictures that advance together.

        Returns:
            Standard normal latents in float32, so that every dtype starts at the same noise.
        """
        return torch.cat([self.noise(spec) for spec in batch.specs])

    def noise(self, spec: GenerationSpec) -> Float[Tensor, "1 c h w"]:
        """Draw the noise of one picture.

        Args:
            spec: The picture.

        Returns:
            Standard normal latents in float32.
        """
        factor = self.info.latent_factor
        shape = (1, self.info.latent_channels, spec.height // factor, spec.width // factor)
        noise = torch.randn(shape, generator=torch_generator(spec.seed))
        return noise.to(self.parts.device)

    def denoise(
        self,
        batch: "Batch",
        heard: Sequence[Heard],
        noise: Float[Tensor, "b c h w"],
        clock: "StepClock",
    ) -> Float[Tensor, "b c h w"]:
        """Follow the probability flow from noise to latent pictures.

        Args:
            batch: Pictures that advance together.
            heard: What each picture hears.
            noise: Where the pictures start.
            clock: Counts steps, and stops when nobody waits any more.

        Returns:
            Finished latents in float32.

        Raises:
            NumericsError: If a NaN or an infinity comes out.
        """
        scheduler = make_scheduler(batch.scheduler, self.noise_schedule, batch.num_steps)
        latents = noise * scheduler.init_noise_sigma
        guides = [Guide(spec.guidance_every, spec.num_steps) for spec in batch.specs]
        caches = [StepCache(spec.cache_threshold, spec.num_steps) for spec in batch.specs]
        for step, timestep in enumerate(scheduler.timesteps):
            clock.check()
            times = timestep.expand(len(latents))
            done = [step / len(scheduler.timesteps)] * len(latents)
            outputs = [
                self.predict(
                    latents[at], times[at], heard[at], done[at], guides[at], caches=caches[at]
                )
                for at in self._rows(len(latents))
            ]
            latents = scheduler.step(torch.cat(outputs), timestep, latents, return_dict=False)[0]
            clock.tick()
        if not torch.isfinite(latents).all():
            bad = [
                s.seed for s, x in zip(batch.specs, latents, strict=True) if not x.isfinite().all()
            ]
            raise NumericsError(
                f"{self.info.name} left NaN or infinity in the latents of seeds {bad} after "
                f"{batch.num_steps} steps in {self.parts.dtype}: try dtype float32."
            )
        return latents

    @torch.inference_mode()
    def prepare(self, spec: GenerationSpec) -> Heard:
        """Encode what a picture hears, its regions' words included.

        Args:
            spec: A picture that was checked.

        Returns:
            What every one of its steps needs of its words, computed once.
        """
        return self._listener.prepare(spec)

    @torch.inference_mode()
    def predict(
        self,
        latents: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, " b"],
        heard: Sequence[Heard],
        progress: Sequence[float],
        guides: Sequence[Guide] | None = None,
        *,
        caches: Sequence[StepCache] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Ask the transformer once what these latents hide.

        Args:
            latents: Noisy latents of one forward pass; one picture each, of any requests.
            timesteps: How noisy each is, 0..999.
            heard: What each hears.
            progress: Steps done over steps in all, of each.
            guides: What each remembers of its guidance; None asks for it at every step.
            caches: What each keeps of its blocks; None computes all of them.

        Returns:
            What the model was trained to predict, guidance applied: noise, data or velocity.
        """
        return self._forward(latents, timesteps, heard, progress, guides, caches=caches)

    def decode(
        self, latents: Float[Tensor, "b c h w"], *, preview: bool = False
    ) -> list[Image.Image]:
        """Turn latents into pictures.

        Args:
            latents: Finished latents, or what a step expects them to become.
            preview: Take the checkpoint's small decoder, if it has one.

        Returns:
            RGB pictures.

        Raises:
            NumericsError: If a NaN or an infinity comes out.
        """
        vae, decode = self.parts.vae, self.networks.decode
        if preview and self.parts.preview is not None:
            vae, decode = self.parts.preview, self.networks.preview
        images: list[Image.Image] = []
        for rows in self._rows(len(latents)):
            # In numpy: what torch spreads over threads keeps them spinning into the next step.
            pixels = decode(latents[rows] / vae.config["scaling_factor"]).cpu().numpy()
            if not np.isfinite(pixels).all():
                where = f"The VAE of {self.info.name} left NaN or infinity in {self.parts.dtype}"
                raise NumericsError(f"{where}: try dtype float32.")
            levels = np.rint(np.clip(pixels * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)
            images += [Image.fromarray(each) for each in levels.transpose(0, 2, 3, 1)]
        return images

    def _rows(self, num_pictures: int) -> Iterator[slice]:
        return (slice(at, at + self.num_rows) for at in range(0, num_pictures, self.num_rows))

    def _now(self) -> float:
        if self.parts.device.type == "cuda":
            torch.cuda.synchronize(self.parts.device)
        return perf_counter()


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Pictures that take the same steps at the same size.

    Attributes:
        places: Where each stands in the request.
        specs: What was asked for, in the same order.
        width: Picture width in pixels.
        height: Picture height in pixels.
        num_steps: Denoising steps.
        scheduler: Registered scheduler name.
        guided: Whether every step also asks what the negative prompt shows.
    """

    places: list[int]
    specs: list[GenerationSpec]
    width: int
    height: int
    num_steps: int
    scheduler: str
    guided: bool


class StepClock:
    """Counts the steps of a whole request and notices that its caller has left.

    Args:
        num_steps: Steps in all.
        on_step: Told the steps done and the steps in all.
        is_cancelled: Asked whether anyone still waits.
    """

    def __init__(
        self,
        num_steps: int,
        on_step: Callable[[int, int], None] | None,
        is_cancelled: Callable[[], bool] | None,
    ) -> None:
        self._num_steps = num_steps
        self._on_step = on_step
        self._is_cancelled = is_cancelled
        self._done = 0

    def check(self) -> None:
        """Stop if nobody waits any more.

        Raises:
            GenerationCancelledError: If the caller has left.
        """
        if self._is_cancelled and self._is_cancelled():
            raise GenerationCancelledError(
                f"Cancelled after {self._done} of {self._num_steps} steps."
            )

    def tick(self) -> None:
        """Count one step."""
        self._done += 1
        if self._on_step:
            self._on_step(self._done, self._num_steps)


def _group(specs: Sequence[GenerationSpec]) -> list[Batch]:
    groups: dict[tuple[int, int, int, str, bool], list[int]] = {}
    for place, s in enumerate(specs):
        key = (s.width, s.height, s.num_steps, s.scheduler, s.guidance_scale > 1.0)
        groups.setdefault(key, []).append(place)
    return [
        Batch(
            places=places,
            specs=[specs[place] for place in places],
            width=width,
            height=height,
            num_steps=num_steps,
            scheduler=scheduler,
            guided=guided,
        )
        for (width, height, num_steps, scheduler, guided), places in groups.items()
    ]
