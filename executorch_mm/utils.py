"""The `make_*_input` helpers under the module name that users of other runners know."""

from executorch_mm.inputs import (
    make_audio_input,
    make_embedding_input,
    make_image_input,
    make_image_inputs,
    make_raw_audio_input,
    make_text_input,
    make_token_input,
)

__all__ = [
    "make_audio_input",
    "make_embedding_input",
    "make_image_input",
    "make_image_inputs",
    "make_raw_audio_input",
    "make_text_input",
    "make_token_input",
]
