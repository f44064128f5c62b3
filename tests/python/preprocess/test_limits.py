"""The limits on images and audio: one place, numbers in every refusal, options that raise them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from executorch_mm import InputError, MediaLimits, media_limits, set_media_limits
from executorch_mm.preprocess.limits import check_limit


@pytest.fixture(autouse=True)
def _defaults_afterwards() -> Iterator[None]:
    yield
    set_media_limits(MediaLimits())


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(MediaLimits)])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "9", float("inf")])
def test_a_limit_is_a_positive_int(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{field}: expected a positive int, got"):
        MediaLimits(**{field: value})  # type: ignore[arg-type]


def test_limits_hold_until_others_are_set() -> None:
    before = media_limits()
    assert before == MediaLimits()
    assert set_media_limits(MediaLimits(image_pixels=3)) == before
    assert media_limits().image_pixels == 3
    assert media_limits().audio_samples == before.audio_samples
    with pytest.raises(InputError, match="limits: expected MediaLimits, got int"):
        set_media_limits(3)  # type: ignore[arg-type]
    assert media_limits().image_pixels == 3


def test_a_refusal_says_the_number_what_came_and_what_allows_more() -> None:
    set_media_limits(MediaLimits(audio_seconds=20))
    check_limit("audio a.wav", "audio_seconds", 20, "seconds")
    message = (
        "audio a.wav: expected at most 20 seconds, got 20.5; "
        "set_media_limits(MediaLimits(audio_seconds=...)) allows more"
    )
    with pytest.raises(InputError) as caught:
        check_limit("audio a.wav", "audio_seconds", 20.5, "seconds")
    assert str(caught.value) == message
