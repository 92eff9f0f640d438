"""The text encoder before any picture: what the nouns of a caption stand for, from words alone.

    a red cat left of a blue dog      "cat": red, in the left half; "dog": blue, in the right half

Which colour belongs to which thing, and which thing stands where, is grammar. From pictures it is
learned last of all, since a thing of the wrong colour costs a picture little. From words and what
a drawn world knows about them it is learned in minutes, and cross-attention finds it ready.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from training.method import Batch, Method, Phase, StepOutput
from training.word_truth import NounTable, word_error


def encode_captions(
    text_encoder: nn.Module, tokenizer: PreTrainedTokenizerFast, captions: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, their hidden words and their mask, padded to the longest caption only.

    Args:
        text_encoder: A T5 encoder.
        tokenizer: Its words.
        captions: At least one.
    """
    device = next(text_encoder.parameters()).device
    tokens = tokenizer(list(captions), padding=True, return_tensors="pt").to(device)
    hidden = text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return tokens.input_ids, hidden, tokens.attention_mask


class WordMethod(Method):
    """Colours and places of nouns, from their words' vectors.

    Args:
        text_encoder: Learns.
        word_head: Learns with it, from `new_word_head`.
        tokenizer: Turns captions into tokens.
    """

    phases = (Phase(name="words", trains=frozenset({"text_encoder", "word_head"})),)

    def __init__(
        self,
        text_encoder: T5EncoderModel,
        word_head: nn.Module,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        super().__init__({"text_encoder": text_encoder, "word_head": word_head})
        self._tokenizer, self._nouns = tokenizer, NounTable(tokenizer)

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the error of colours and places on a batch of captions and layouts."""
        tokens, words, _ = encode_captions(
            self.roles["text_encoder"], self._tokenizer, batch["captions"]
        )
        told = self.roles["word_head"](words).float()
        error, colors, distance = word_error(told, self._nouns.look(tokens, batch["layouts"]))
        return StepOutput(loss=error, metrics={"word_colors": colors, "word_distance": distance})
