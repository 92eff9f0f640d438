from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError, UnsupportedError
from pipelines.attention import RegionalRow, RowTexts, regional_attention
from pipelines.depth import PRESETS, LayerRule, depth_map
from pipelines.region_spec import Region
from pipelines.regional_forms import Form
from pipelines.regions import token_weights

FORMS: tuple[Form, ...] = ("auto", "gathered", "folded", "packed")
# Largest difference between two ways to the same output, over its largest value.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
HARD = (
    Region(high="a", box=(0.0, 0.0, 0.5, 0.5)),
    Region(high="b", box=(0.5, 0.0, 1.0, 0.5)),
    Region(high="c", box=(0.25, 0.5, 0.75, 1.0)),
)
SOFT = (
    Region(high="a", box=(0.0, 0.0, 0.63, 0.5), feather=0.1),
    Region(high="b", box=(0.41, 0.1, 1.0, 0.57), weight=2.0),
    Region(high="c", box=(0.2, 0.3, 0.7, 1.0), z=1),
)
SHAPES: tuple[dict[str, Any], ...] = (
    {"num_layers": 2},
    {"num_layers": 3, "num_attention_heads": 3, "attention_head_dim": 8, "caption_channels": 24},
)
flat = depth_map("flat", 2)


def network(dtype: torch.dtype = torch.float32, **changes: Any) -> PixArtTransformer2DModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "caption_channels": 32,
        "sample_size": 16,
        "patch_size": 2,
    } | changes
    config["cross_attention_dim"] = config["num_attention_heads"] * config["attention_head_dim"]
    made = PixArtTransformer2DModel(**config, use_additional_conditions=False).eval()
    # Fresh weights scarcely hear their words; a louder input makes every mistake visible.
    made.caption_projection.linear_2.weight.data *= 10
    return made.to(dtype)


def texts(num: int, width: int = 32, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3 + 2 * (n % 3), width, generator=generator) for n in range(num)]


def row(regions: tuple[Region, ...], *, width: int = 32, seed: int = 1, **changes: Any) -> RowTexts:
    weights = token_weights(regions, width=128, height=128, token_px=16, **changes)
    words = texts(len(weights), width, seed)
    low, high = texts(len(weights), width, seed + 10), texts(len(weights), width, seed + 20)
    return RowTexts(texts={"both": words, "low": low, "high": high}, weights=weights)


def forward(
    made: PixArtTransformer2DModel, words: list[torch.Tensor] | None = None, start: int = 0
) -> torch.Tensor:
    words = words or texts(1, made.config.caption_channels)
    latents = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    padded = torch.nn.utils.rnn.pad_sequence(words, batch_first=True).to(made.dtype)
    lengths = torch.tensor([len(text) for text in words])
    with torch.inference_mode():
        return made(
            latents[start : start + len(words)].to(made.dtype),
            encoder_hidden_states=padded,
            encoder_attention_mask=torch.arange(padded.shape[1]) < lengths[:, None],
            timestep=torch.full((len(words),), 500),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0].float()


def regional(
    made: PixArtTransformer2DModel, *rows: RowTexts | None, **options: Any
) -> torch.Tensor:
    options.setdefault("depth", depth_map("flat", made.config.num_layers))
    start = options.pop("start", 0)
    with torch.inference_mode():
        ready = [asked and RegionalRow(made, asked, **options) for asked in rows]
    with torch.inference_mode(), regional_attention(made, ready):
        return forward(made, texts(1, made.config.caption_channels) * len(rows), start)


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype) -> None:
    assert ours.isfinite().all()
    scale = float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE[dtype] * scale, rtol=0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["looped", *FORMS])
def test_one_full_region_equals_plain(
    dtype: torch.dtype, shape: dict[str, Any], form: Form
) -> None:
    made = network(dtype, **shape)
    width = made.config.caption_channels
    full = row((Region(high="a", box=(0.0, 0.0, 1.0, 1.0)),), width=width)
    plain = forward(made, [full.texts["both"][1]])
    assert_same(regional(made, full, form=form), plain, dtype)
    assert (plain - forward(made)).abs().max() > 1e-3  # the words are heard at all


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_no_regions_touch_nothing(dtype: torch.dtype) -> None:
    made = network(dtype)
    plain = forward(made)
    stock = [block.attn2.processor for block in made.transformer_blocks]
    with torch.inference_mode(), regional_attention(made, [None]):
        assert [block.attn2.processor for block in made.transformer_blocks] == stock
        assert forward(made).equal(plain)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_form_equals_the_loop(dtype: torch.dtype, shape: dict[str, Any], preset: str) -> None:
    made = network(dtype, **shape)
    depth = depth_map(preset, shape["num_layers"])
    for regions, base_share in ((HARD, 0.0), (SOFT, 0.2)):
        asked = row(regions, width=made.config.caption_channels, base_share=base_share)
        looped = regional(made, asked, depth=depth, form="looped")
        for form in FORMS:
            hard = regions is HARD and all(rule.scope != "both" for rule in depth)
            if form != "packed" or hard:
                assert_same(regional(made, asked, depth=depth, form=form), looped, dtype)


@pytest.mark.parametrize("form", ["looped", "gathered", "folded"])
def test_the_order_of_regions_changes_nothing(form: Form) -> None:
    made, asked = network(), row(SOFT)
    order = [0, 3, 1, 2]
    turned = RowTexts(
        texts={level: [words[n] for n in order] for level, words in asked.texts.items()},
        weights=asked.weights[order],
    )
    assert_same(regional(made, turned, form=form), regional(made, asked, form=form), torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_batch_of_different_regions_equals_singles(dtype: torch.dtype) -> None:
    made = network(dtype)
    rows = (row(HARD), None, row(SOFT, seed=2, base_share=0.3), row(HARD[:1], seed=3))
    together = regional(made, *rows, depth=depth_map("progressive", 2))
    for place, asked in enumerate(rows):
        alone = regional(made, asked, depth=depth_map("progressive", 2), start=place)
        assert_same(together[place : place + 1], alone, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_kept_keys_change_no_bit_and_are_computed_once(dtype: torch.dtype) -> None:
    made, asked = network(dtype), row(SOFT)
    calls: list[int] = []
    hook = made.transformer_blocks[0].attn2.to_k.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        ready = [RegionalRow(made, asked, depth=flat, keep_keys=keep) for keep in (True, False)]
        with regional_attention(made, ready[:1]):
            kept = [forward(made, start=step) for step in range(3)]
        assert len(calls) == len(asked.weights)
        hook.remove()
        with regional_attention(made, ready[1:]):
            assert all(forward(made, start=step).equal(kept[step]) for step in range(3))


def test_equal_texts_are_asked_for_once() -> None:
    made, asked = network(), row(HARD)
    first = asked.texts["both"][0]
    same = RowTexts(texts={"both": [first] * 4}, weights=asked.weights)
    assert_same(regional(made, same), forward(made, [first]), torch.float32)
    calls: list[int] = []
    made.transformer_blocks[0].attn2.to_k.register_forward_hook(lambda *_: calls.append(1))
    regional(made, same)
    assert len(calls) == 1


edges = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda e: e[0] != e[1]).map(sorted)
any_box = st.tuples(edges, edges).map(lambda e: (e[0][0], e[1][0], e[0][1], e[1][1]))
SMALL = network()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.builds(Region, high=st.just("a"), box=any_box, z=st.integers(0, 1)), max_size=5))
def test_any_boxes_give_finite_pictures_in_every_form(regions: list[Region]) -> None:
    asked = row(tuple(regions))
    looped = regional(SMALL, asked, form="looped")
    for form in ("auto", "gathered", "folded"):
        assert_same(regional(SMALL, asked, form=form), looped, torch.float32)


def test_a_layer_hears_the_level_and_scope_of_its_rule() -> None:
    made, asked = network(), row(HARD)
    for level in ("low", "high", "both"):
        ours = regional(made, asked, depth=[LayerRule(level=level, scope="global")] * 2)
        assert_same(ours, forward(made, [asked.texts[level][0]]), torch.float32)


def test_regional_negatives_act_on_the_unconditional_row_alone() -> None:
    made, asked, negatives = network(), row(HARD), row(HARD, seed=4)
    plain = regional(made, None, asked)
    both = regional(made, negatives, asked)
    assert_same(both[1:], plain[1:], torch.float32)
    assert (both[0] - plain[0]).abs().max() > 1e-3
    assert_same(plain[:1], forward(made), torch.float32)


def test_the_stock_processors_come_back_even_after_an_error() -> None:
    made = network()
    stock = [block.attn2.processor for block in made.transformer_blocks]
    ready = RegionalRow(made, row(HARD), depth=flat)
    with pytest.raises(ZeroDivisionError), regional_attention(made, [ready]):
        raise ZeroDivisionError
    assert [block.attn2.processor for block in made.transformer_blocks] == stock


def test_what_does_not_fit_is_refused() -> None:
    made, asked = network(), row(HARD)
    with pytest.raises(InputError, match="3 entries"):
        regional(made, asked, depth=depth_map("flat", 3))
    with pytest.raises(InputError, match="soft ones"):
        regional(made, row(SOFT), form="packed")
    with pytest.raises(InputError, match="tokens"):
        regional(made, RowTexts(texts=asked.texts, weights=asked.weights[:, :10]))
    with pytest.raises(InputError, match="4 weights"):
        regional(made, RowTexts(texts={"both": asked.texts["both"][:2]}, weights=asked.weights))
    ready = RegionalRow(made, asked, depth=flat)
    with regional_attention(made, [ready]), pytest.raises(InputError, match="2 rows"):
        forward(made, texts(2))
    made.transformer_blocks[0].attn2.norm_q = torch.nn.LayerNorm(16)
    with pytest.raises(UnsupportedError, match="alpha and Sigma"):
        regional(made, asked)
