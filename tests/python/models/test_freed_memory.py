"""What loading has used for a moment goes back to the system."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import pytest

from executorch_mm import MultimodalRunner
from executorch_mm._loading import model
from model_set import MODELS
from number_tokenizer import NumberTokenizer


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_freed_memory_is_returned() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(16_384) for _ in range(2_000)]
    for block in blocks:
        ctypes.memset(block, 1, 16_384)
    above = libc.malloc(16_384)  # keeps the heap from shrinking by itself
    for block in blocks:
        libc.free(block)
    before = anonymous_bytes()

    model.return_freed_memory()

    assert before - anonymous_bytes() > 16 << 20
    libc.free(above)


def test_loading_returns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(model, "return_freed_memory", lambda: calls.append(None))

    MultimodalRunner(MODELS / "export_llm" / "llama_xnnpack_8da4w.pte", NumberTokenizer()).close()

    assert len(calls) == 1
