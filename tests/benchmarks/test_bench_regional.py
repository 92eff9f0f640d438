from pathlib import Path

import pytest
import torch

from benchmarks.bench_regional import (
    NUM_REGIONS,
    hard,
    headline,
    image_cases,
    overheads,
    peaks,
    planned,
    step_cases,
)
from pipelines.regional_forms import is_hard
from pipelines.regions import token_weights
from pipelines.spec import GenerationSpec
from pipelines.text_to_image import TextToImage
from tests.pipelines.conftest import folder, make_folder

__all__ = ["folder", "make_folder"]

PLAIN = GenerationSpec(prompt="a cat", num_steps=1)


def weights(spec: GenerationSpec) -> torch.Tensor:
    return token_weights(spec.regions, width=128, height=128, token_px=16)


@pytest.mark.parametrize("num", NUM_REGIONS)
def test_the_cases_are_what_they_are_called(num: int) -> None:
    assert len(hard(PLAIN, num).regions) == len(planned(PLAIN, num).regions) == num
    assert is_hard(weights(hard(PLAIN, num)))
    assert not is_hard(weights(planned(PLAIN, num)))


def test_every_case_is_timed_against_plain(folder: Path) -> None:
    painter = TextToImage.load(folder, device="cpu")
    by_image = overheads(image_cases(painter, 1), 1, label="Pictures")
    assert all(value > 0 for value in headline(by_image).values())
    cases = step_cases(painter)
    kept = {name: cases[name] for name in ("plain", "packed_hard_r4", "auto_planned_r8")}
    assert set(overheads(kept, 1, label="Steps")) == {
        "packed_hard_r4", "packed_hard_r4_cpu", "auto_planned_r8", "auto_planned_r8_cpu",
    }  # fmt: skip


def test_peaks_are_those_of_processes_of_their_own(folder: Path) -> None:
    found = peaks(str(folder), 1)
    assert set(found) == {f"regional_peak_mb_{name}" for name in ("plain", "r4", "latent_r4")}
    assert all(50 < value < 5000 for value in found.values())


def test_what_was_not_timed_is_null() -> None:
    assert set(headline({}).values()) == {None}
