"""Muon for processors without bfloat16, in which torch's own computes whatever it is given."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class FloatMuon(torch.optim.Muon):
    """torch's Muon in float32, for adjust_lr_fn "match_rms_adamw"; states can be exchanged.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks"; as in torch,
        with decoupled weight decay and Nesterov's momentum. Differs: float32; matrices of one shape
        go through the iterations together.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the weights that have gradients.

        Args:
            closure: Not taken.
        """
        assert closure is None
        for group in self.param_groups:
            assert group["adjust_lr_fn"] == "match_rms_adamw"  # the only one that is built
            by_shape = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[weight.shape].append(weight)
            for weights in by_shape.values():
                self._move(weights, group)

    def _move(self, weights: Sequence[Tensor], group: Mapping[str, Any]) -> None:
        momentum = group["momentum"]
        updates = []
        for weight in weights:
            gradient = weight.grad
            assert gradient is not None  # `step` left out those without
            buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(gradient))
            buffer.lerp_(gradient, 1 - momentum)
            updates.append(gradient.lerp(buffer, momentum) if group["nesterov"] else buffer)
        directions = orthogonal(
            torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        rate = group["lr"] * 0.2 * math.sqrt(max(weights[0].shape))  # "match_rms_adamw"
        for weight, direction in zip(weights, directions, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=rate)


def orthogonal(
    matrices: Float[Tensor, "n a b"],
    coefficients: tuple[float, float, float],
    num_steps: int,
    smallest_norm: float,
) -> Float[Tensor, "n a b"]:
    """Return matrices with about the same directions, whose singular values are all near 1.

    Args:
        matrices: Any.
        coefficients: Of x, x^3 and x^5 in an iteration on singular values.
        num_steps: Iterations.
        smallest_norm: Smaller norms count as this.

    Source: Jordan et al., as above: Newton-Schulz iterations, quintic.
    """
    a, b, c = coefficients
    is_tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if is_tall else matrices
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=smallest_norm)
    for _ in range(num_steps):
        gram = found @ found.mT
        found = torch.baddbmm(
            found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a
        )
    return found.mT if is_tall else found
