"""Pictures by plain DDIM, as they are measured: the same arithmetic that students learn."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.classifier_free import guided
from core.seeding import torch_generator
from distill.noise import NoiseSchedule
from distill.tasks import Task
from training.method import Batch


@torch.no_grad()
def sample(
    network: nn.Module,
    task: Task,
    noise: NoiseSchedule,
    batch: Batch,
    *,
    num_steps: int,
    guidance: float = 1.0,
    rescale: float = 0.0,
    seeds: list[int],
) -> Float[Tensor, "b c h w"]:
    """Return finished pictures, each from the noise of its own seed.

    Args:
        network: Teacher or student.
        task: What is denoised and what is heard.
        noise: The schedule of the network.
        batch: What is asked for; its pictures are looked at for their shape alone.
        num_steps: DDIM steps.
        guidance: Classifier-free guidance scale; 1 for none.
        rescale: How far guided predictions go back to the spread without guidance, 0..1.
        seeds: One per picture.
    """
    like = task.clean(batch)
    drawn = [torch.randn(like.shape[1:], generator=torch_generator(seed)) for seed in seeds]
    pictures = torch.stack(drawn).to(like.device)
    words, nothing = task.heard(batch)
    grid = noise.grid(num_steps).to(like.device)
    for start, end in pairwise(grid):
        times, ends = start.expand(len(pictures)), end.expand(len(pictures))
        velocity = task.predict(network, pictures, times, words)
        if guidance != 1:
            without = task.predict(network, pictures, times, nothing)
            velocity = guided(velocity, without, scale=guidance, rescale=rescale)
        belief = noise.clean(pictures, velocity, times)
        pictures = noise.jump(pictures, belief, times, ends)
    return pictures
