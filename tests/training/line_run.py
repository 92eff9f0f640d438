"""One short run of the line, as `accelerate launch` or `torchrun` starts it in each process."""

import sys
from pathlib import Path

from safetensors.torch import save_file

from tests.training.conftest import LineMethod, line_batch, line_config
from training.loop import run

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    method = LineMethod()
    run(method, line_batch, line_config(6), folder)
    save_file(method.roles["student"].state_dict(), folder / "student.safetensors")
