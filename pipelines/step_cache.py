"""Blocks that are skipped at a step whose first block finds little new, for one picture each."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TypeAlias

from diffusers import PixArtTransformer2DModel
from diffusers.hooks.first_block_cache import FBCBlockHook, FBCHeadBlockHook, FBCSharedBlockState
from diffusers.hooks.hooks import CacheContext, HookRegistry, StateManager

Side: TypeAlias = tuple[bool, bool]
"""Whether a row is the unconditional one, and whether it hears regions."""

_HOOK = "first_block_cache"


class StepCache:
    """What one picture keeps of its blocks, from one step to the next.

    Each side has states of its own, and what hears regions another than what does not: words of
    later layers may change where the first one's stay. All states go with this object.

    Args:
        threshold: How much the first block's residual may change, as mean |new - old| over
            mean |old|, from the last step that computed the other blocks, for their residual of
            that step to be used again. 0 keeps nothing.
        num_steps: Steps of the picture.

    Source: first-block cache of ParaAttention (chengzeyi), as diffusers' hooks have it. Differs:
        a state belongs to a row of a picture, not to a batch, and hooks are attached for one pass.
        `apply_first_block_cache` leaves them on for every pass and everybody's, and keeps states
        in the model by a context that PixArt's class cannot set.
    """

    def __init__(self, threshold: float, num_steps: int) -> None:
        self.threshold = threshold
        self._num_steps = num_steps
        # the step before the last one as well: one that is computed again starts from there
        self._kept: dict[Side, list[tuple[int, FBCSharedBlockState]]] = {}

    def begin(self, side: Side, progress: float) -> "CachedPass | None":
        """Return a pass that starts from what was kept before this step; None where this is off.

        Args:
            side: Whose pass.
            progress: Steps done over steps in all.
        """
        if not self.threshold:
            return None
        step = round(progress * self._num_steps)
        earlier = self._before(side, step)
        state = copy(earlier[-1][1]) if earlier else FBCSharedBlockState()
        return CachedPass(cache=self, side=side, step=step, state=state)

    def keep(self, done: "CachedPass") -> None:
        """Keep what a pass has found, once it came to its end.

        Args:
            done: The pass.
        """
        done.state.head_block_output = None  # of use inside the pass alone
        earlier = self._before(done.side, done.step)
        self._kept[done.side] = [*earlier[-1:], (done.step, done.state)]

    def _before(self, side: Side, step: int) -> list[tuple[int, FBCSharedBlockState]]:
        return [(number, state) for number, state in self._kept.get(side, []) if number < step]


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedPass:
    """One row's way through the transformer.

    Attributes:
        cache: Where it begins and where it is kept.
        side: Whose pass.
        step: At which step.
        state: What diffusers' hooks read and write: a copy, so that a pass that fails in the
            middle leaves nothing.
    """

    cache: StepCache
    side: Side
    step: int
    state: FBCSharedBlockState

    @property
    def is_reused(self) -> bool:
        """Whether the pass, once it is done, took what an earlier step had computed."""
        return not self.state.should_compute

    @contextmanager
    def attached(self, transformer: PixArtTransformer2DModel) -> Iterator[None]:
        """Let forwards of one row skip blocks until the block ends; then no hook is left.

        Args:
            transformer: A PixArt transformer of two blocks or more.

        Yields:
            Nothing.
        """
        states = StateManager(lambda: self.state)
        states.set_context(CacheContext("row"))
        first, *others = transformer.transformer_blocks
        hooks = [(first, FBCHeadBlockHook(states, self.cache.threshold))]
        hooks += [(block, FBCBlockHook(states, is_tail=block is others[-1])) for block in others]
        registries = []
        try:
            for block, hook in hooks:
                registries.append(HookRegistry.check_if_exists_or_initialize(block))
                registries[-1].register_hook(hook, _HOOK)
            yield
        finally:
            for registry in registries:
                registry.remove_hook(_HOOK, recurse=False)
