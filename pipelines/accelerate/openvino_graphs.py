"""From a torch module to OpenVINO's graph, whole numbers put where they stand for weights."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from core.errors import UnsupportedError
from pipelines.accelerate.openvino_runtime import load_openvino
from quant.constants import IntegerWeights
from quant.numerics import min_max_grid, quantize
from quant.precision import MAX_BITS

_ROOT = "self."
_ATTENTION = "ScaledDotProductAttention"


def to_graph(
    module: nn.Module,
    example: Sequence[Tensor],
    shapes: Sequence[Sequence[int]],
    codes: Mapping[str, IntegerWeights],
) -> Any:  # noqa: ANN401 - openvino.Model
    """Write down what a module computes.

    Args:
        module: Called once with the example.
        example: Its inputs.
        shapes: Shape of each input; -1 is any length.
        codes: Weights to keep in whole numbers, by the path of their layer in the module.

    Returns:
        The graph.

    Raises:
        UnsupportedError: If a layer that has codes is not found in the graph.
    """
    openvino = load_openvino()
    with torch.inference_mode(mode=False), torch.no_grad(), _without_warnings():
        traced = torch.jit.trace(module, tuple(example), check_trace=False, strict=False)
        graph = openvino.convert_model(traced, example_input=tuple(example))
    graph.reshape(
        {
            place: openvino.PartialShape(list(shape))
            for place, shape in zip(graph.inputs, shapes, strict=True)
        }
    )
    found = {node.get_friendly_name(): node for node in graph.get_ops()}
    for layer, weights in codes.items():
        constant = found.get(f"{_ROOT}{layer}.weight")
        if constant is None:
            raise UnsupportedError(f"The graph has no weight of the layer {layer!r}.")
        whole = _in_whole_numbers(weights)
        for user in constant.output(0).get_target_inputs():
            user.replace_source_output(whole)
    graph.validate_nodes_and_infer_types()
    return graph


def attend_in_bfloat16(graph: Any) -> None:  # noqa: ANN401 - openvino.Model
    """Let attention alone compute in bfloat16, whatever computes the rest.

    A network whose engine rounds inputs to bytes while running must compute in float32 otherwise:
    asked for bfloat16, the engine leaves those bytes out.

    Args:
        graph: Changed in place.
    """
    openvino = load_openvino()
    from openvino import opset13 as ops

    for node in graph.get_ordered_ops():
        if node.get_type_name() != _ATTENTION:
            continue
        for heard in node.inputs():
            halved = ops.convert(heard.get_source_output(), openvino.Type.bf16)
            heard.replace_source_output(halved.output(0))
        node.validate_and_infer_types()
        users = node.output(0).get_target_inputs()
        widened = ops.convert(node.output(0), openvino.Type.f32)
        for user in users:
            user.replace_source_output(widened.output(0))
    graph.validate_nodes_and_infer_types()


@contextmanager
def _without_warnings() -> Iterator[None]:
    # torch warns of every Python number that tracing freezes, transformers of losses, since
    # tracing touches every property of a module
    library = logging.getLogger("transformers")
    level = library.level
    library.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.setLevel(level)


def in_eight_bits(weight: Float[Tensor, "o i"]) -> IntegerWeights:
    """Round a float weight to eight bits, each output channel on a grid of its own.

    Args:
        weight: One row per output channel.
    """
    widths = torch.full((len(weight),), MAX_BITS)
    grid = min_max_grid(weight.float(), widths, whole_zero=True)
    return IntegerWeights(
        bits=MAX_BITS,
        codes=quantize(weight.float(), grid),
        zero=grid.zero.to(torch.uint8),
        scale=grid.scale,
        rest=None,
    )


def _in_whole_numbers(weights: IntegerWeights) -> Any:  # noqa: ANN401 - openvino.Output
    openvino = load_openvino()
    from openvino import opset13 as ops

    scale = ops.constant(weights.scale.float().numpy())
    if weights.zero is None:
        codes = ops.constant(weights.codes.numpy())
        return ops.multiply(ops.convert(codes, openvino.Type.f32), scale).output(0)
    codes, zero = (
        ops.convert(_constant(part, weights.bits), openvino.Type.f32)
        for part in (weights.codes, weights.zero)
    )
    return ops.multiply(ops.subtract(codes, zero), scale).output(0)


def _constant(codes: UInt8[Tensor, "o i"], bits: int) -> Any:  # noqa: ANN401 - openvino.Constant
    openvino = load_openvino()
    kind = {2: openvino.Type.u2, 4: openvino.Type.u4, MAX_BITS: openvino.Type.u8}[bits]
    tensor = openvino.Tensor(kind, openvino.Shape(list(codes.shape)))
    tensor.data.reshape(-1)[:] = _interleaved(codes, bits).numpy()
    return openvino.op.Constant(tensor)


def _interleaved(codes: UInt8[Tensor, "o i"], bits: int) -> UInt8[Tensor, " m"]:
    """Pack codes as OpenVINO does: neighbours share a byte, the first in its lowest bits."""
    per_byte = MAX_BITS // bits
    flat = codes.flatten()
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % per_byte)).view(-1, per_byte)
    packed = torch.zeros(len(flat), dtype=torch.uint8)
    for place in range(per_byte):
        packed |= flat[:, place] << (bits * place)
    return packed
