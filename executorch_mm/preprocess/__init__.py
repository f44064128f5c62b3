"""Images and audio prepared as the model was trained on them, from the files published with the model."""

from executorch_mm.preprocess.audio import AudioProcessor, LogMelConfig
from executorch_mm.preprocess.fixed_size import ImageConfig
from executorch_mm.preprocess.gemma4 import FrameConfig
from executorch_mm.preprocess.image import ImageProcessor
from executorch_mm.preprocess.mel_program import MelProgram
from executorch_mm.preprocess.processor import Processor
from executorch_mm.preprocess.rgb_images import image_to_hwc_uint8, load_image, open_image
from executorch_mm.preprocess.steps import Normalize, PreparedImage
from executorch_mm.preprocess.waveform import InputWarning, Waveform, load_audio

__all__ = [
    "AudioProcessor",
    "FrameConfig",
    "ImageConfig",
    "ImageProcessor",
    "InputWarning",
    "LogMelConfig",
    "MelProgram",
    "Normalize",
    "PreparedImage",
    "Processor",
    "Waveform",
    "image_to_hwc_uint8",
    "load_audio",
    "load_image",
    "open_image",
]
