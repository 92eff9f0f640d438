"""The small text encoder and its word-level tokenizer, both made for the emoji world's captions.

Words are learned together with the pictures: a word that no caption holds has no meaning here and
becomes <unk>.
"""

import math
import re
from collections.abc import Iterable, Iterator

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from scenes import captions, vocabulary

MAX_TOKENS = 120
AVERTED = -4.0
"""Logit at which a head begins on the side it does not look to."""

MARKS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: lower-case words, one token each, and an end mark."""
    words = [*MARKS.values(), *sorted(set(_world_words()))]
    ids = {word: index for index, word in enumerate(words)}
    model = WordLevel(ids, unk_token=MARKS["unk_token"])
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[^\w]"), behavior="isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, **MARKS)


def new_text_encoder(tokenizer: PreTrainedTokenizerFast, *, width: int) -> T5EncoderModel:
    """Return an untrained T5 encoder of three layers.

    Args:
        tokenizer: Decides the number of embeddings.
        width: Model width, a multiple of 32.
    """
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=32,
        num_heads=width // 32,
        d_ff=2 * width,
        num_layers=3,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=False,
    )
    encoder = T5EncoderModel(config)
    look_both_ways(encoder)
    return encoder


def look_both_ways(text_encoder: T5EncoderModel) -> None:
    """Draw the table of relative positions anew, so that each head looks one way.

    Half of the heads look back, half ahead, each with a reach of its own. From a table near zero a
    word hears the same from both sides, and what is left of what is a symmetry that training
    leaves late.

    Args:
        text_encoder: Whose table is overwritten.

    Source: Press et al., arXiv 2108.12409, section 3: logits fall linearly with distance, by
        geometric slopes. Differs: as a start that training moves, and in two directions.
    """
    first = text_encoder.encoder.block[0].layer[0].SelfAttention
    table = first.relative_attention_bias.weight
    num_buckets, num_heads = table.shape
    half = num_buckets // 2
    exact = half // 2  # buckets of one distance each; the others hold several
    reach = math.log(text_encoder.config.relative_attention_max_distance / exact)
    bucket = torch.arange(half, dtype=table.dtype)
    wide = exact * torch.exp(reach * (bucket - exact) / (half - exact))
    distance = torch.where(bucket < exact, bucket, wide)
    for head in range(num_heads):
        falling = (-(2.0 ** -(head // 2)) * distance).clamp(min=2 * AVERTED)
        behind, ahead = (falling, AVERTED) if head % 2 == 0 else (AVERTED, falling)
        with torch.no_grad():
            table[:half, head] = behind
            table[half:, head] = ahead
            table[0, head] = 0.0  # the word itself


def _world_words() -> Iterator[str]:
    tables: tuple[Iterable[str], ...] = (
        vocabulary.NOUNS,
        (noun.plural for noun in vocabulary.NOUNS.values()),
        vocabulary.COLORS,
        vocabulary.SIZES_PX,
        captions.COUNT_WORDS.values(),
        *captions.RELATION_WORDINGS.values(),
        *captions.PLACE_WORDINGS.values(),
        *captions.BACKGROUND_WORDINGS.values(),
        *captions.STYLE_WORDINGS.values(),
        *captions.DETAIL_WORDINGS.values(),
        ("a picture of a photo of an and , the is all",),
    )
    for table in tables:
        for text in table:
            yield from re.findall(r"\w+|[^\w\s]", text)
