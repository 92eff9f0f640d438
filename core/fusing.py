"""A network's forward pass with its operations fused; its weights stay where they are."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WORDS = ("encoder_hidden_states", "encoder_attention_mask")


def fused(network: nn.Module) -> Callable[..., Any]:
    """Return a network's forward pass, compiled at its first call.

    The network itself stays plain: what samples from it, saves it or copies it sees no difference.
    Texts may differ in length from call to call; other shapes should stay the same.

    Args:
        network: A diffusers transformer or UNet.

    Returns:
        Takes what the network takes. The first call takes minutes, on a CPU later ones about two
        thirds of the usual time.
    """
    forward = torch.compile(network.forward)

    def call(*args: Tensor, **named: Tensor) -> Any:  # noqa: ANN401 - whatever the network returns
        from torch._dynamo import mark_dynamic  # seconds to import, for who compiles

        for name in WORDS:
            if name in named:  # captions differ in length: one graph for all of them
                mark_dynamic(named[name], 1)
        return forward(*args, **named)

    return call
