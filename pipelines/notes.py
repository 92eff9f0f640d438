"""What of a picture will be done otherwise than asked, known before it is painted."""

from collections.abc import Callable, Sequence

from pipelines.from_plan import plan_notes
from pipelines.spec import GenerationSpec


def spec_notes(
    spec: GenerationSpec, unknown_words: Callable[[str], Sequence[str]]
) -> tuple[str, ...]:
    """Return, in words, what became of a picture's plan, and which words cannot be heard.

    Args:
        spec: The picture.
        unknown_words: The model's: the words of a text that it has no tokens for.
    """
    whole = (spec.prompt, spec.negative_prompt, spec.prompt_high, spec.prompt_low, spec.ground)
    own = [text for region in spec.regions for text in (region.high, region.low, region.negative)]
    unknown = dict.fromkeys(word for text in (*whole, *own) for word in unknown_words(text))
    notes = plan_notes(spec)
    if unknown:
        listed = ", ".join(map(repr, unknown))
        notes += (f"The model was never taught {listed}, and cannot tell such words apart.",)
    return notes
