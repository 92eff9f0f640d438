"""A noun's word is held against what it names: its colour and its place in the picture."""

import pytest
import torch
import torch.nn.functional as F

from core.seeding import torch_generator
from scenes.layout import NUM_COLOR_CLASSES
from scenes.vocabulary import COLORS, NOUNS
from training.text import AVERTED, new_text_encoder, new_tokenizer
from training.word_truth import NounTable, new_word_head, word_error
from training.words import WordMethod

RED, BLUE = (2 + list(COLORS).index(color) for color in ("red", "blue"))
CAT, DOG = (1 + list(NOUNS).index(noun) for noun in ("cat", "dog"))


def scene(*things):
    """A layout of 8 x 8 cells with things at (noun, colour, row, column)."""
    cells = torch.zeros(1, 8, 8, 2, dtype=torch.long)
    for noun, color, row, column in things:
        cells[0, row, column] = torch.tensor([noun, color])
    return cells


def look(caption, layout):
    tokenizer = new_tokenizer()
    tokens = tokenizer([caption], return_tensors="pt").input_ids
    truth = NounTable(tokenizer).look(tokens, layout)
    names = tokenizer.convert_ids_to_tokens(tokens[0])
    return {name: index for index, name in enumerate(names)}, truth


def test_nouns_know_their_own_colour_and_place():
    at, truth = look(
        "a red cat left of a blue dog", scene((CAT, RED, 3, 0), (CAT, RED, 4, 0), (DOG, BLUE, 0, 7))
    )
    assert truth.is_noun[0].nonzero().flatten().tolist() == [at["cat"], at["dog"]]
    assert truth.color[0, at["cat"]] == RED
    assert truth.color[0, at["dog"]] == BLUE
    assert truth.place[0, at["cat"]].tolist() == [-0.875, 0.0]
    assert truth.place[0, at["dog"]].tolist() == [0.875, -0.875]


def test_a_plural_stands_for_all_it_names():
    at, truth = look("two cats", scene((CAT, RED, 0, 0), (CAT, BLUE, 7, 7)))
    assert truth.is_noun[0, at["cats"]]
    assert truth.color[0, at["cats"]] == -1  # neither colour is the colour of both
    assert truth.place[0, at["cats"]].tolist() == [0.0, 0.0]


def test_a_noun_that_does_not_show_is_not_asked_about():
    _, truth = look("a cat in front of a dog", scene((CAT, RED, 3, 3)))
    assert int(truth.is_noun.sum()) == 1


def test_a_head_that_is_right_has_no_error():
    _, truth = look("a red cat and a blue dog", scene((CAT, RED, 3, 0), (DOG, BLUE, 0, 7)))
    told = torch.cat([60.0 * F.one_hot(truth.color, NUM_COLOR_CLASSES), truth.place], dim=-1)
    error, colors, distance = word_error(told, truth)
    assert float(error) == pytest.approx(0.0, abs=1e-6)
    assert (float(colors), float(distance)) == (1.0, 0.0)


def test_captions_without_nouns_cost_nothing():
    _, truth = look("", scene())
    error, _, _ = word_error(torch.zeros(1, 1, NUM_COLOR_CLASSES + 2), truth)
    assert float(error) == 0.0


def test_half_of_the_heads_look_back_and_half_ahead():
    encoder = new_text_encoder(new_tokenizer(), width=192)
    attention = encoder.encoder.block[0].layer[0].SelfAttention
    bias = attention.compute_bias(9, 9)[0].detach()  # heads, from, to
    middle = bias[:, 4]
    for head, logits in enumerate(middle):
        seen, averted = (logits[:5], logits[5:]) if head % 2 == 0 else (logits[4:], logits[:4])
        assert (averted == AVERTED).all()
        outwards = seen.flip(0) if head % 2 == 0 else seen
        assert outwards[0] == 0.0
        assert (outwards.diff() < 0).all()


@pytest.mark.slow
def test_colours_of_two_things_are_told_apart_from_words_alone():
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    method = WordMethod(new_text_encoder(tokenizer, width=32), new_word_head(32), tokenizer)
    names, colors = ["cat", "dog", "car", "owl"], ["red", "blue", "white", "black"]
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    shares = []
    for step in range(200):
        draw = torch_generator(step)
        layouts, captions = [], []
        for _ in range(32):
            first, second = torch.randperm(4, generator=draw)[:2].tolist()
            one, other = torch.randperm(4, generator=draw)[:2].tolist()
            captions.append(f"a {colors[one]} {names[first]} and a {colors[other]} {names[second]}")
            layouts.append(
                scene(
                    (*_classes(names[first], colors[one]), 3, 1),
                    (*_classes(names[second], colors[other]), 3, 6),
                )
            )
        batch = {"captions": captions, "layouts": torch.cat(layouts)}
        output = method.step("words", batch, draw)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        shares.append(float(output.metrics["word_colors"]))
    assert sum(shares[-20:]) / 20 > 0.8  # a bag of words is right half of the time


def _classes(noun, color):
    return 1 + list(NOUNS).index(noun), 2 + list(COLORS).index(color)
