"""What an image of a given size costs, held against the limits before memory is taken."""

from __future__ import annotations

from executorch_mm.preprocess.limits import check_limit

# How Pillow keeps a pixel, in bytes; other modes take 4.
_KEPT_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_RGB_BYTES = 3
# float32 of three channels, and once more where tiles or patches are put in order.
_PREPARED_BYTES = 24


def check_image(what: str, size: tuple[int, int], mode: str, reading_bytes: int = 0) -> None:
    """Refuses an image that is to be read and made RGB.

    Args:
        what: Starts the error message.
        size: (width, height).
        mode: Pillow's name of what a pixel is.
        reading_bytes: What its decoder takes for a pixel besides.

    Raises:
        InputError: It would be larger than the limits say.
    """
    check_edges(what, size)
    per_pixel = _KEPT_BYTES.get(mode, 4) + max(reading_bytes, _RGB_BYTES)
    _check_bytes(what, size, per_pixel, f"{per_pixel} for each of {size[0]} x {size[1]} pixels, mode {mode}")


def check_edges(what: str, size: tuple[int, int], made_of: str = "") -> None:
    """Refuses an image by its pixels.

    Args:
        what: Starts the error message.
        size: (width, height).
        made_of: Ends it: where such a size comes from.

    Raises:
        InputError: It would be larger than the limits say.
    """
    width, height = size
    came = f"{width} x {height}{made_of}"
    check_limit(what, "image_edge", max(size), "pixels along an edge", came)
    check_limit(what, "image_pixels", width * height, "pixels", came)


def check_prepared(count: int, height: int, width: int) -> None:
    """Refuses a result of preparation: tiles or frames, float32 (count, 3, height, width).

    Raises:
        InputError: It would be larger than the limits say.
    """
    check_limit("image", "image_tiles", count, "tiles")
    check_edges("image", (width, height))
    per_tile = _PREPARED_BYTES * width
    _check_bytes("image", (count, height), per_tile, f"{count} x 3 x {height} x {width} prepared floats")


def _check_bytes(what: str, size: tuple[int, int], per_pixel: int, explained: str) -> None:
    num_bytes = size[0] * size[1] * per_pixel
    check_limit(what, "image_bytes", num_bytes, "bytes", f"{num_bytes} ({explained})")
