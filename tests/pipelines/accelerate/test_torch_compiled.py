"""What torch compiles paints what plain torch paints, with regions or without."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import ConfigError
from pipelines.accelerate.choose import COARSE, EXACT
from pipelines.accelerate.torch_compiled import CACHE_VARIABLE, why_not
from pipelines.region_spec import Region
from pipelines.rows import RowPainter
from pipelines.spec import GenerationSpec
from pipelines.text_to_image import TextToImage

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler itself
needs_compiler = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

ROOT = Path(__file__).parents[3]
PLAIN = GenerationSpec(prompt="a red apple", seed=3, num_steps=2, guidance_scale=4.0)
REGIONAL = replace(
    PLAIN,
    regions=(
        Region(high="a red apple", box=(0.0, 0.0, 0.5, 1.0)),
        Region(high="the cat", low="a blue cat", box=(0.3, 0.2, 1.0, 1.0), negative="dog"),
    ),
    depth="progressive",
)


@pytest.fixture(scope="module")
def compiled(
    load: Callable[..., TextToImage], tmp_path_factory: pytest.TempPathFactory
) -> TextToImage:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(CACHE_VARIABLE, raising=False)
        return load("torch-compiled", cache_dir=tmp_path_factory.mktemp("inductor"))


def latents(model: TextToImage, specs: Sequence[GenerationSpec]) -> list[Float[Tensor, "1 c h w"]]:
    """The last latents of pictures that go through the network together."""
    painter = RowPainter(model)
    rows = [painter.begin(spec) for spec in specs]
    for _ in range(PLAIN.num_steps):
        for row, prediction in zip(rows, painter.predict(rows), strict=True):
            painter.apply(row, prediction)
    return [row.latents for row in rows]


@needs_compiler
@pytest.mark.slow
def test_pictures_are_those_of_plain_torch_alone_and_in_company(
    compiled: TextToImage, model: TextToImage
) -> None:
    specs = [PLAIN, REGIONAL, replace(REGIONAL, seed=4, depth="reversed")]
    together = latents(compiled, specs)
    for spec, found in zip(specs, together, strict=True):
        assert torch.equal(found, latents(compiled, [spec])[0])
        plain = latents(model, [spec])[0]
        assert (found - plain).norm() < EXACT * plain.norm()
        ours, theirs = (np.asarray(m.generate([spec])[0].image, int) for m in (compiled, model))
        assert abs(ours - theirs).max() <= 1
    assert compiled.networks.execution.backend == "torch-compiled"
    assert compiled.networks.execution.fallbacks == {}


@needs_compiler
@pytest.mark.slow
def test_other_sizes_and_words_compile_nothing_more(compiled: TextToImage) -> None:
    compiled.generate([PLAIN, REGIONAL])
    width = compiled.parts.transformer.config["caption_channels"]
    with torch._dynamo.config.patch(error_on_recompile=True), torch.inference_mode():
        wide = compiled.networks.denoise(
            torch.randn(1, 8, 16, 24), torch.tensor([500]), [torch.randn(11, width)], [None]
        )
        compiled.generate([replace(REGIONAL, prompt="a cat", regions=REGIONAL.regions[:1])])
    assert wide.shape == (1, 8, 16, 24)
    assert compiled.networks.execution.fallbacks == {}


@needs_compiler
@pytest.mark.slow
def test_one_compiled_block_serves_all_layers_of_a_low_bit_variant(tmp_path: Path) -> None:
    model = TextToImage.load(
        ROOT / "checkpoints" / "emoji-scenes",
        variant="low-bit",
        device="cpu",
        backend="torch-compiled",
        cache_dir=tmp_path,
    )
    spec = GenerationSpec(prompt="a red apple", seed=3, num_steps=2, width=128, height=128)
    torch._dynamo.reset()  # it keeps what it compiled by source code, of other models too
    with torch._dynamo.config.patch(error_on_recompile=True):
        together = latents(model, [spec, replace(spec, seed=4)])
    assert torch.equal(together[1], latents(model, [replace(spec, seed=4)])[0])
    # Every network call is compared with plain torch; one that is further away is refused.
    assert model.networks.execution.tolerance == COARSE
    assert model.networks.execution.fallbacks == {}


def test_without_a_compiler_it_says_what_to_install(
    load: Callable[..., TextToImage], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"apt-get install g\+\+") as caught:
        load("torch-compiled")
    assert caught.value.param == "backend"
