"""Which kernels run where, and what is said where those asked for cannot."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from sgas.errors import DeviceError
from sgas.native import triton
from sgas.native.backend import backend_for, use_kernels
from sgas.native.operators import once

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    triton._why_not.cache_clear()
    yield
    triton._why_not.cache_clear()


def test_of_threads_that_come_first_one_alone_computes() -> None:
    calls, together = list[int](), Barrier(4)

    @once
    def slow(number: int) -> int:
        calls.append(number)
        time.sleep(0.05)
        return -number

    def ask(_: int) -> int:
        together.wait()
        return slow(3)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [-3] * 4
    assert calls == [3] and slow(4) == -4


def test_on_the_cpu_triton_has_to_be_asked_for_and_interprets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend_for(CPU, None) == "torch"
    use_kernels("cuda")
    assert backend_for(CPU, None) == "cuda"
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(DeviceError, match="'cuda', but the device is cpu: give --kernels auto"):
        backend_for(CPU, None)


def test_without_triton_a_gpu_takes_torch_and_the_reason_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with caplog.at_level(logging.WARNING, "sgas"):
        assert [backend_for(CUDA, None) for _ in range(3)] == ["torch"] * 3
    assert ["pip install triton" in record.message for record in caplog.records] == [True]
    use_kernels("cuda")
    with pytest.raises(DeviceError, match=r"'cuda', but Triton cannot be imported .*--kernels"):
        backend_for(CUDA, None)
    use_kernels("torch")
    assert backend_for(CUDA, None) == "torch"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU for Triton to reach")
def test_triton_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET")
    reason = triton.why_not()
    assert reason is not None and "does not reach the GPU" in reason and "\n" not in reason
    assert backend_for(CUDA, None) == "torch"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_on_a_gpu_auto_takes_triton() -> None:
    pytest.importorskip("triton")
    assert backend_for(CUDA, None) == "cuda"
