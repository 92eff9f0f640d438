import contextlib
import mmap
import os

import pytest
import torch

from core import devices
from core.errors import InputError, UnknownNameError, UnsupportedError

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_fastest_device_that_is_there_is_chosen(monkeypatch, has_cuda, has_mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    assert devices.best_device().type == expected


def test_no_precision_leaves_products_in_float32():
    with devices.autocast(CPU, "no"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_bf16_computes_products_in_bfloat16_and_leaves_weights_alone():
    layer = torch.nn.Linear(4, 4)
    with devices.autocast(CPU, "bf16"):
        assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize(("in_hardware", "precision"), [(True, "bf16"), (False, "no")])
def test_auto_takes_bf16_only_where_the_processor_multiplies_it(
    monkeypatch, in_hardware, precision
):
    abilities = {"avx512_f": True, "avx512_bf16": in_hardware}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert devices.training_precision("auto", CPU) == precision
    assert devices.training_precision("bf16", CPU) == "bf16"


@pytest.mark.parametrize(
    ("abilities", "bits"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_vnni": False}, 7),
        ({"architecture": "x86_64", "avx2": True, "avx_vnni": True}, 8),
        ({"architecture": "aarch64"}, 8),
    ],
)
def test_byte_products_are_narrower_where_their_sums_would_overflow(monkeypatch, abilities, bits):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert devices.byte_product_bits() == bits


def test_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="Known: auto, bf16, no") as caught:
        devices.autocast(CPU, "fp16")
    assert caught.value.param == "precision"


def test_a_gpu_without_bfloat16_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P4")
    with pytest.raises(UnsupportedError, match="Tesla P4 has no bfloat16: use precision=no"):
        devices.autocast(torch.device("cuda"), "bf16")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bf16_computes_products_in_bfloat16_on_a_gpu():
    device = devices.best_device()
    with devices.autocast(device, "bf16"):
        product = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    assert product.dtype == torch.bfloat16


def test_threads_are_set_as_asked(threads):
    assert devices.limit_threads(1) == torch.get_num_threads() == 1


def test_threads_default_to_every_usable_core(threads):
    assert devices.limit_threads() == devices.usable_cores()


@pytest.mark.parametrize("num_threads", [0, -3])
def test_less_than_one_thread_is_refused(num_threads):
    with pytest.raises(InputError, match=f"{num_threads} threads: give at least 1"):
        devices.limit_threads(num_threads)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_pinned_process_counts_only_its_own_cores():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert devices.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("content", "expected"), [("max 100000", None), ("150000 100000", 2), ("50000 100000", 1)]
)
def test_container_quota_is_read_in_whole_cores(tmp_path, content, expected):
    limit = tmp_path / "cpu.max"
    limit.write_text(content)
    assert devices._container_cores(limit) == expected


def test_machine_without_a_container_quota_has_none(tmp_path):
    assert devices._container_cores(tmp_path / "cpu.max") is None


def test_resident_memory_grows_with_what_is_held_and_the_peak_is_never_below():
    before = devices.resident_bytes()
    held = mmap.mmap(-1, 64_000_000)  # from the system itself: a heap may have room left
    held.write(b"x" * len(held))
    after = devices.resident_bytes()
    assert after - before > 32_000_000
    assert devices.peak_bytes() >= after - 8_000_000
    held.close()


def test_machine_is_described_in_one_line_with_what_decides_a_measurement():
    text = devices.machine_description()
    assert "\n" not in text
    assert f"{devices.usable_cores()} cores" in text
    assert f"torch {torch.__version__}" in text


def test_every_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"H200 #{i}")
    assert "; H200 #0; H200 #1; " in devices.machine_description()


def test_cpu_without_a_model_name_is_still_called_something(tmp_path):
    assert devices._cpu_name(tmp_path / "missing")
    nameless = tmp_path / "cpuinfo"
    nameless.write_text("processor : 0\n")
    assert devices._cpu_name(nameless)


def test_autocast_contexts_leave_nothing_behind():
    with contextlib.suppress(ZeroDivisionError), devices.autocast(CPU, "bf16"):
        _ = 1 / 0
    assert not torch.is_autocast_enabled("cpu")
