"""Pictures prepared as the model was trained on them, from the files published with the model."""

from executorch_mm.preprocess.image import ImageProcessor, image_to_hwc_uint8, open_image
from executorch_mm.preprocess.image_config import ImageConfig

__all__ = ["ImageConfig", "ImageProcessor", "image_to_hwc_uint8", "open_image"]
