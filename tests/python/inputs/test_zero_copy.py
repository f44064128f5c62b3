"""Arrays go to the encoder by pointer where dtype and layout fit, whatever library they come from."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

from executorch_mm import GenerationConfig, MultimodalRunner, make_image_input
from executorch_mm.arrays import to_numpy

PIXELS = np.linspace(-1, 1, 3 * 64 * 64, dtype=np.float32).reshape(3, 64, 64)


class OtherLibrary:
    """An array that only speaks DLPack."""

    def __init__(self, array: np.ndarray) -> None:  # type: ignore[type-arg]
        self.array = array

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize(
    "array", [PIXELS, PIXELS[np.newaxis], OtherLibrary(PIXELS.copy()), memoryview(PIXELS.copy())], ids=repr
)
def test_the_core_holds_the_callers_own_memory(runner: MultimodalRunner, array: object) -> None:
    part = make_image_input(array)  # type: ignore[arg-type]
    prompt = runner._requests.encoder.encode([part], GenerationConfig(), is_start=True)
    assert prompt[0].address == to_numpy(array, "array").ctypes.data


@pytest.mark.torch
def test_the_core_holds_the_memory_of_a_torch_tensor(runner: MultimodalRunner) -> None:
    import torch

    tensor = torch.from_numpy(PIXELS.copy())
    for array in (tensor, tensor[None], tensor.clone().requires_grad_().detach()):
        prompt = runner._requests.encoder.encode([make_image_input(array)], GenerationConfig(), is_start=True)
        assert prompt[0].address == array.data_ptr()


def test_a_prepared_array_is_not_copied_on_the_way_to_the_encoder(runner: MultimodalRunner) -> None:
    assert not runner.contract.methods["vision_encoder"].inputs[0].is_planned
    part = make_image_input(PIXELS)
    runner.prefill([part])
    runner.reset()
    tracemalloc.start()
    runner.prefill([part])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert runner.stats.copied_input_bytes == 0
    assert peak_bytes < PIXELS.nbytes / 2


def test_a_conversion_is_counted_as_a_copy(runner: MultimodalRunner) -> None:
    runner.prefill([make_image_input(PIXELS.astype(np.float16))])
    assert runner.stats.copied_input_bytes == PIXELS.nbytes // 2


def test_an_array_of_the_wrong_layout_is_refused_by_the_core_instead_of_copied(
    runner: MultimodalRunner,
) -> None:
    prompt = runner._requests.encoder.encode([make_image_input(PIXELS)], GenerationConfig(), is_start=True)
    with pytest.raises(TypeError):
        type(prompt[0]).image(np.asfortranarray(PIXELS))


def test_the_array_lives_as_long_as_the_prompt_and_no_longer(runner: MultimodalRunner) -> None:
    array = PIXELS.copy()
    alive = weakref.ref(array)
    prompt = runner._requests.encoder.encode([make_image_input(array)], GenerationConfig(), is_start=True)
    del array
    gc.collect()
    assert alive() is not None
    del prompt
    gc.collect()
    assert alive() is None
