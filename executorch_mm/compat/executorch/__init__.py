"""The names of `executorch.extension.llm.runner` over this package: change the import, keep the script.

    from executorch_mm.compat.executorch import GenerationConfig, TextLLMRunner

Names, parameters, defaults and the beginnings of messages are upstream's; the model is run by
`executorch_mm.MultimodalRunner`, without torch. What differs on purpose: https://executorch-mm.example/docs/migration.html
New code is better off with `executorch_mm` itself, which can do more.
"""

from executorch_mm.compat.executorch.config import GenerationConfig
from executorch_mm.compat.executorch.inputs import (
    MultimodalInput,
    make_audio_input,
    make_image_input,
    make_raw_audio_input,
    make_text_input,
    make_token_input,
)
from executorch_mm.compat.executorch.media import Audio, Image, RawAudio
from executorch_mm.compat.executorch.runners import MultimodalRunner, TextLLMRunner
from executorch_mm.compat.executorch.stats import Stats

__all__ = [
    "Audio",
    "GenerationConfig",
    "Image",
    "MultimodalInput",
    "MultimodalRunner",
    "RawAudio",
    "Stats",
    "TextLLMRunner",
    "make_audio_input",
    "make_image_input",
    "make_raw_audio_input",
    "make_text_input",
    "make_token_input",
]
