"""One short relational run, as `accelerate launch` starts it in each process."""

import sys
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import save_file

from distill.methods.rdd import RelationalMethod, RelationalSettings
from distill.noise import NoiseSchedule
from distill.stages import Stage
from tests.distill.conftest import (
    SCHEDULE,
    TinyFeatures,
    TinyNetwork,
    loop_config,
    pixel_batch,
    tiny_task,
)
from training.loop import run

NUM_STEPS = 4
PIXELS_OF_A_HALF = 3 * 16
STAGE = Stage(num_steps=2, teacher_steps=4, guidance=2.0)


class Recording(RelationalMethod):
    """Keeps what chance decided in the first step."""

    first_drawn = None

    def draw(self, batch, generator):
        drawn = super().draw(batch, generator)
        self.first_drawn = self.first_drawn or drawn
        return drawn


def new_method(kind):
    # every pixel enters the queue and all of it is looked at, so that order decides nothing
    settings = RelationalSettings(
        squared=1.0,
        memory=1.0,
        capacity=4 * PIXELS_OF_A_HALF,
        num_contrasts=4 * PIXELS_OF_A_HALF,
        num_fresh=2 * PIXELS_OF_A_HALF,
    )
    return kind(
        TinyNetwork(),
        TinyNetwork(1),
        tiny_task(),
        NoiseSchedule(SCHEDULE),
        STAGE,
        features=TinyFeatures(),
        settings=settings,
    )


def half(part):
    return pixel_batch(part, count=3)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    method = new_method(Recording)
    run(method, half, loop_config(NUM_STEPS), folder)
    drawn = method.first_drawn
    tensors = {f"student.{k}": v for k, v in method.roles["student"].state_dict().items()}
    tensors |= {"queue": method.queue.rows, "noise": drawn.noise, "places": drawn.places}
    rank = dist.get_rank() if dist.is_initialized() else 0
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"rank-{rank}.safetensors")
    if dist.is_initialized():
        dist.destroy_process_group()
