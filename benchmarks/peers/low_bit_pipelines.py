"""One low-bit peer in a process and an environment of its own: paints what it is told on stdin.

    .venv-peers/bin/python -m benchmarks.peers.low_bit_pipelines torchao_int8 MODEL TRANSFORMER \
        1 2 cpu

Each line of stdin asks for a picture in JSON, each line of stdout answers with its seconds and its
pixels; the first says that everything is loaded and compiled, or why it cannot be.
"""

import base64
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from benchmarks.peers.stock_pipeline import load_stock, paint_stock

CALIBRATION = tuple(
    f"a {color} {noun} and a {other}"
    for color, noun, other in zip(
        ("red", "blue", "green", "yellow", "orange", "purple", "pink", "brown") * 2,
        ("cat", "dog", "apple", "frog", "owl", "star", "car", "heart") * 2,
        ("key", "fish", "sun", "bird", "tree", "car", "cup", "rose") * 2,
        strict=True,
    )
)
"""What static ranges are measured on: 16 pictures of 4 steps."""

ASKED = {"seed": 0, "num_steps": 4, "guidance_scale": 1.0, "width": 128, "height": 128}
NUM_CALIBRATION = 64

Call = Mapping[str, Tensor]
Forward = Callable[..., Any]


def torchao_int8(pipe: Any) -> float:  # noqa: ANN401 - diffusers has no types
    """Int8 weights and inputs, ranges of inputs measured per token, compiled."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(pipe.transformer, Int8DynamicActivationInt8WeightConfig())
    pipe.transformer = torch.compile(pipe.transformer)
    return _saved_mb(pipe.transformer)


def torchao_fp8(pipe: Any) -> float:  # noqa: ANN401
    """Weights and inputs in eight-bit floats, ranges measured per row, compiled: for Hopper."""
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        PerRow,
        quantize_,
    )

    quantize_(pipe.transformer, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()))
    pipe.transformer = torch.compile(pipe.transformer)
    return _saved_mb(pipe.transformer)


def quanto_int8(pipe: Any) -> float:  # noqa: ANN401
    """Int8 weights, float inputs."""
    from optimum.quanto import freeze, qint8, quantize

    quantize(pipe.transformer, weights=qint8)
    freeze(pipe.transformer)
    return _saved_mb(pipe.transformer)


def sdnq_uint4(pipe: Any) -> float:  # noqa: ANN401
    """Weights of four bits."""
    from sdnq import sdnq_post_load_quant

    pipe.transformer = sdnq_post_load_quant(
        pipe.transformer, weights_dtype="uint4", add_skip_keys=True
    )
    return _saved_mb(pipe.transformer)


def ort_int8(pipe: Any) -> float:  # noqa: ANN401
    """ONNX Runtime: int8 weights, ranges of inputs measured per tensor; decoder in float32."""
    import onnxruntime as ort

    [call] = _calls(pipe, 1)
    latent = torch.randn(1, pipe.transformer.config.in_channels, *_cells(pipe))
    run, size = ort_session(pipe.transformer, call)
    with TemporaryDirectory() as folder:
        vae = str(Path(folder) / "vae.onnx")
        _export(_Decoder(pipe.vae), (latent,), vae, ("latent",), is_new=True)
        decoder = ort.InferenceSession(vae, _ort_options(ort))
    _put(pipe, run, lambda x: torch.from_numpy(decoder.run(None, {"latent": x.numpy()})[0]))
    return size


def ort_session(transformer: nn.Module, call: Call) -> tuple[Callable[[Call], Tensor], float]:
    """Return a step by ONNX Runtime, int8 weights and dynamic ranges, and the size of its weights.

    Args:
        transformer: The float network.
        call: Inputs of a step.
    """
    import onnxruntime as ort
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as folder:
        plain, small = (str(Path(folder) / f"{name}.onnx") for name in ("plain", "small"))
        # ONNX Runtime 1.32 refuses what the other exporter makes.
        _export(_Step(transformer), tuple(call.values()), plain, tuple(call), is_new=False)
        quantize_dynamic(plain, small, weight_type=QuantType.QInt8, per_channel=True)
        size = Path(small).stat().st_size / 1e6
        step = ort.InferenceSession(small, _ort_options(ort))

    def run(given: Call) -> Tensor:
        feed = {name: given[name].numpy() for name in call}
        return torch.from_numpy(step.run(None, feed)[0])

    return run, size


def openvino_int8_static(pipe: Any) -> float:  # noqa: ANN401
    """OpenVINO with NNCF: int8 weights and inputs, ranges measured beforehand, SmoothQuant."""
    return _put_openvino(pipe, static_graph(pipe.transformer, _calls(pipe, NUM_CALIBRATION)))


def static_graph(transformer: nn.Module, calls: Sequence[Call]) -> Any:  # noqa: ANN401
    """Return a graph of int8 weights and inputs.

    Args:
        transformer: The float network.
        calls: Inputs that ranges are measured on.
    """
    import nncf

    return nncf.quantize(
        _openvino_step(transformer, calls[0]),
        nncf.Dataset([[part.numpy() for part in call.values()] for call in calls]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calls),
    )


def openvino_int8_dynamic(pipe: Any) -> float:  # noqa: ANN401
    """OpenVINO with NNCF: int8 weights, ranges of inputs measured while running."""
    return _put_openvino(pipe, dynamic_graph(pipe.transformer, *_calls(pipe, 1)))


def dynamic_graph(transformer: nn.Module, call: Call) -> Any:  # noqa: ANN401
    """Return a graph of int8 weights.

    Args:
        transformer: The float network.
        call: Inputs of a step.
    """
    import nncf

    return nncf.compress_weights(_openvino_step(transformer, call))


PEERS: dict[str, tuple[Callable[[Any], float], torch.dtype]] = {
    "openvino_int8_static": (openvino_int8_static, torch.float32),
    "openvino_int8_dynamic": (openvino_int8_dynamic, torch.float32),
    "ort_int8": (ort_int8, torch.float32),
    "torchao_int8": (torchao_int8, torch.bfloat16),
    "torchao_fp8": (torchao_fp8, torch.bfloat16),
    "quanto_int8": (quanto_int8, torch.bfloat16),
    "sdnq_uint4": (sdnq_uint4, torch.bfloat16),
}


class _Step(nn.Module):
    """One call of the transformer, with tensors alone."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, latent: Tensor, words: Tensor, mask: Tensor, timestep: Tensor) -> Tensor:
        found = self.transformer(
            latent,
            encoder_hidden_states=words,
            encoder_attention_mask=mask,
            timestep=timestep,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )
        return found[0]


class _Decoder(nn.Module):
    def __init__(self, vae: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent, return_dict=False)[0]


class _Encoder(nn.Module):
    def __init__(self, text_encoder: nn.Module) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.text_encoder(ids, attention_mask=mask)[0]


def _calls(pipe: Any, number: int) -> Sequence[Call]:  # noqa: ANN401
    """Listen to the transformer's inputs while the float pipeline paints."""
    heard: list[Call] = []
    plain = pipe.transformer.forward

    def listen(latent: Tensor, **given: Any) -> Any:  # noqa: ANN401
        heard.append(_tensors(latent, given))
        return plain(latent, **given)

    pipe.transformer.forward = listen
    for place, prompt in enumerate(CALIBRATION):
        if len(heard) >= number:
            break
        paint_stock(pipe, {**ASKED, "prompt": prompt, "seed": place})
    pipe.transformer.forward = plain
    return heard[:number]


def _tensors(latent: Tensor, given: Mapping[str, Any]) -> Call:
    return {
        "latent": latent,
        "words": given["encoder_hidden_states"],
        "mask": given["encoder_attention_mask"].float(),
        "timestep": given["timestep"].float(),
    }


def _put(pipe: Any, step: Callable[[Call], Tensor], decode: Callable[[Tensor], Tensor]) -> None:  # noqa: ANN401
    """Let compiled networks take the place of torch's."""
    pipe.transformer.forward = lambda latent, **given: (step(_tensors(latent, given)),)
    pipe.vae.decode = lambda latent, **_: (decode(latent),)


def _openvino_step(transformer: nn.Module, call: Call) -> Any:  # noqa: ANN401
    import openvino

    graph = openvino.convert_model(_Step(transformer), example_input=tuple(call.values()))
    graph.reshape(
        {port: list(part.shape) for port, part in zip(graph.inputs, call.values(), strict=True)}
    )
    return graph


def compiled_graph(graph: Any) -> Callable[..., Tensor]:  # noqa: ANN401
    """Return what runs a graph on torch's number of threads.

    Args:
        graph: Of one output.
    """
    import openvino

    threads = {"INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
    network = openvino.Core().compile_model(graph, "CPU", threads)

    def run(*parts: Tensor) -> Tensor:
        return torch.from_numpy(network([part.numpy() for part in parts])[0].copy())

    return run


def weights_mb(graph: Any) -> float:  # noqa: ANN401
    """Return what OpenVINO stores of a graph's weights, in 10^6 bytes.

    Args:
        graph: Any.
    """
    import openvino

    with TemporaryDirectory() as folder:
        openvino.save_model(graph, f"{folder}/m.xml", compress_to_fp16=False)
        return Path(f"{folder}/m.bin").stat().st_size / 1e6


def _put_openvino(pipe: Any, graph: Any) -> float:  # noqa: ANN401
    import openvino

    latent = torch.randn(1, pipe.transformer.config.in_channels, *_cells(pipe))
    step = compiled_graph(graph)
    decoder = openvino.convert_model(_Decoder(pipe.vae), example_input=(latent,))
    decoder.reshape({decoder.inputs[0]: list(latent.shape)})
    decode = compiled_graph(decoder)
    ids = torch.ones(1, 8, dtype=torch.long)
    encode = compiled_graph(
        openvino.convert_model(_Encoder(pipe.text_encoder), example_input=(ids, ids))
    )
    pipe.text_encoder.forward = lambda ids, attention_mask: (encode(ids, attention_mask),)
    _put(pipe, lambda given: step(*given.values()), decode)
    return weights_mb(graph)


def _cells(pipe: Any) -> tuple[int, int]:  # noqa: ANN401
    return (ASKED["height"] // pipe.vae_scale_factor, ASKED["width"] // pipe.vae_scale_factor)


def _export(
    module: nn.Module, call: tuple[Tensor, ...], path: str, names: Sequence[str], *, is_new: bool
) -> None:
    torch.onnx.export(module.eval(), call, path, input_names=list(names), dynamo=is_new)


def _ort_options(ort: Any) -> Any:  # noqa: ANN401
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return options


def _held_bytes(device: str) -> int:
    if device == "cpu":
        return int(psutil.Process().memory_info().rss)
    return torch.cuda.max_memory_reserved(device)


def _saved_mb(network: nn.Module) -> float:
    with TemporaryDirectory() as folder:
        torch.save(network.state_dict(), f"{folder}/m.pt")
        return Path(f"{folder}/m.pt").stat().st_size / 1e6


@contextmanager
def answers() -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Keep stdout for answers: what libraries print goes to stderr."""
    answers = sys.stdout

    def answer(message: Mapping[str, object]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    with redirect_stdout(sys.stderr):
        yield answer


def main(  # noqa: PLR0917 - a command line
    name: str, model: str, transformer: str, order: str, threads: str, device: str
) -> None:
    """Load a peer, then paint until stdin ends."""
    torch.set_num_threads(int(threads))
    with answers() as answer, torch.inference_mode():
        try:
            prepare, dtype = PEERS[name]
            pipe = load_stock(model, transformer, int(order), dtype, device)
            weights_mb = prepare(pipe)
            paint_stock(pipe, {**ASKED, "prompt": CALIBRATION[0]})
        except Exception as error:  # noqa: BLE001  (whatever is wrong with a peer is said and ends it)
            answer({"error": f"{type(error).__name__}: {error}"})
            return
        answer({"weights_mb": weights_mb})
        for line in sys.stdin:
            started = time.perf_counter()
            pixels = paint_stock(pipe, json.loads(line))
            seconds = time.perf_counter() - started
            answer(
                {
                    "seconds": seconds,
                    "shape": list(pixels.shape),
                    "pixels": base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode(),
                    "resident_mb": _held_bytes(device) / 1e6,
                    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
                }
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
