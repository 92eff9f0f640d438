"""Words to vectors: each text is encoded once, alone and unpadded, and kept."""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pipelines.invariance import padded_length


class PromptEncoder:
    """Encodes texts, one at a time, and remembers the last ones.

    A text that is encoded without padding gives the same vectors as in a padded batch, up to
    rounding, because padding is masked out; but its bits depend on nothing else in the request.

    Args:
        tokenizer: Splits a text; appends the end mark.
        encode_ids: Turns the tokens of one text into vectors.
        count: Told of every text, whether it was remembered or encoded.
        max_num_texts: How many texts are remembered; the least recently used goes first.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encode_ids: Callable[[Int[Tensor, "1 l"]], Float[Tensor, "l d"]],
        *,
        count: Callable[..., None] | None = None,
        max_num_texts: int = 128,
    ) -> None:
        self._tokenizer = tokenizer
        self._encode_ids = encode_ids
        self._count = count
        self._max_num_texts = max_num_texts
        self._known: OrderedDict[str, Float[Tensor, "l d"]] = OrderedDict()
        # A request is counted when it is taken in, and again when it is painted.
        self._token_ids = lru_cache(maxsize=max_num_texts)(self._split)
        # Requests are counted on one thread while others are encoded on another; a fast tokenizer
        # refuses to be borrowed twice.
        self._lock = Lock()

    def encode(self, text: str) -> Float[Tensor, "l d"]:
        """Return the vectors of a text, from memory where it was met before.

        Args:
            text: A prompt; empty for the unconditional half of guidance.

        Returns:
            One row per token, on the text encoder's device.
        """
        key = normalised(text)
        if self._count is not None:
            self._count(**{"texts_remembered" if key in self._known else "texts_encoded": 1})
        if key not in self._known:
            self._known[key] = self._encode_ids(torch.tensor([self._token_ids(key)]))
            if len(self._known) > self._max_num_texts:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text takes, end mark included."""
        return len(self._token_ids(normalised(text)))

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the tokenizer has no tokens for, in their order.

        Args:
            text: A prompt.
        """
        unknown = self._tokenizer.unk_token_id
        if unknown not in self._token_ids(normalised(text)):
            return []
        words = dict.fromkeys(re.findall(r"[^\W_]+", normalised(text)))
        return [word for word in words if unknown in self._token_ids(word)]

    def _split(self, text: str) -> tuple[int, ...]:
        with self._lock:
            return tuple(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """What the pictures of one forward pass listen to.

    Attributes:
        vectors: Encoded texts, padded with zeros to the longest of them.
        mask: True where a real token stands.
    """

    vectors: Float[Tensor, "b l d"]
    mask: Bool[Tensor, "b l"]


def stack_words(texts: Sequence[Float[Tensor, "_ d"]]) -> Words:
    """Put encoded texts of different lengths side by side.

    Args:
        texts: At least one.

    Returns:
        The texts, padded to the length that `padded_length` says for the longest.
    """
    lengths = torch.tensor([len(text) for text in texts], device=texts[0].device)
    vectors = pad_sequence(list(texts), batch_first=True)
    vectors = F.pad(vectors, (0, 0, 0, padded_length(vectors.shape[1]) - vectors.shape[1]))
    positions = torch.arange(vectors.shape[1], device=vectors.device)
    return Words(vectors=vectors, mask=positions < lengths[:, None])


def normalised(text: str) -> str:
    """Return a text as PixArt was trained to read it: in lower case, without outer blanks."""
    return text.lower().strip()
