"""Which axis holds the channels, and that a view is a view."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_mm import GenerationConfig, InputError, MultimodalRunner, make_image_input
from executorch_mm.arrays import image_array
from executorch_mm.inputs import MultimodalInput, as_parts, make_token_input


@pytest.mark.parametrize(
    ("shape", "layout", "chw"),
    [
        ((3, 5, 7), None, (3, 5, 7)),
        ((5, 7, 3), None, (3, 5, 7)),
        ((5, 7, 4), None, (4, 5, 7)),
        ((5, 7, 1), None, (1, 5, 7)),
        ((1, 5, 7), None, (1, 5, 7)),
        ((5, 7), None, (1, 5, 7)),
        ((1, 5, 7, 3), None, (3, 5, 7)),
        ((3, 5, 3), None, (3, 5, 3)),
        ((3, 5, 3), "HWC", (3, 3, 5)),
        ((1, 5, 3), None, (3, 1, 5)),
        ((3, 5, 1), None, (3, 5, 1)),
        ((3, 3, 3), "HWC", (3, 3, 3)),
    ],
)
def test_channels_come_first_and_memory_is_shared(
    shape: tuple[int, ...], layout: str | None, chw: tuple[int, ...]
) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    view = image_array(array, layout=layout)  # type: ignore[arg-type]
    assert view.shape == chw
    assert np.shares_memory(view, array)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(InputError, match="layout: expected 'HWC', 'CHW' or None, got 'WHC'"):
        make_image_input(np.zeros((3, 3, 3), np.uint8), layout="WHC")  # type: ignore[arg-type]


def test_representations_name_kind_and_shape_and_cut_long_texts() -> None:
    assert repr(MultimodalInput("a" * 60)) == f'MultimodalInput(type=text, content="{"a" * 50}...")'
    assert repr(make_token_input([1, 2])) == "MultimodalInput(type=tokens, dtype=int64, shape=(2,))"
    assert "type=image, dtype=uint8, shape=(3, 5, 6)" in repr(make_image_input(np.zeros((5, 6, 3), np.uint8)))


def test_a_prompt_is_a_text_an_input_or_a_list_of_them() -> None:
    token = make_token_input(range(3))
    assert [part.kind for part in as_parts("a")] == ["text"]
    assert as_parts(token) == [token]
    assert [part.kind for part in as_parts(("a", token))] == ["text", "tokens"]


def test_a_processor_path_that_does_not_exist_is_an_error(demo_folder: object) -> None:
    with (
        MultimodalRunner(f"{demo_folder}/model.pte", processor_path="nowhere.json") as runner,
        pytest.raises(InputError, match=r"nowhere\.json"),
    ):
        runner.prefill([make_image_input(np.zeros((8, 8, 3), np.uint8))])


def test_resolving_max_new_tokens_takes_the_tightest_limit() -> None:
    def resolve(occupied: int, **limits: int) -> int:
        return GenerationConfig(**limits).resolve_max_new_tokens(1024, occupied)  # type: ignore[arg-type]

    assert resolve(100) == 924
    assert resolve(100, max_new_tokens=200) == 200
    assert resolve(100, seq_len=512) == 412
    assert resolve(100, seq_len=512, max_new_tokens=200) == 200
    assert resolve(600, seq_len=512) == 0
    assert resolve(1000, max_new_tokens=200) == 24
