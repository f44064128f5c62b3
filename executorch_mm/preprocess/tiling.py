"""Image processors that cut an image into tiles: LLaVA-NeXT, GOT-OCR 2, InternVL, Idefics 3, SmolVLM."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from executorch_mm._files.config_reader import ConfigReader, Json, is_length
from executorch_mm.preprocess.fixed_size import CLIP, ImageConfig
from executorch_mm.preprocess.image_size import check_prepared
from executorch_mm.preprocess.limits import check_limit
from executorch_mm.preprocess.resample import LANCZOS, resize
from executorch_mm.preprocess.rgb_images import UInt8Array
from executorch_mm.preprocess.steps import (
    COMMON_DEFAULTS,
    COMMON_KEYS,
    HALF,
    FloatArray,
    Normalize,
    PreparedImage,
    cut,
    paste_centred,
)

LLAVA_NEXT_KEYS = COMMON_KEYS | {
    "image_grid_pinpoints",
    "do_pad",
    "do_center_crop",
    "crop_size",
    "aspect_ratio_setting",
}
LLAVA_NEXT: Json = {
    **CLIP,
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
}
GOT_OCR2_KEYS = COMMON_KEYS | {"crop_to_patches", "min_patches", "max_patches"}
GOT_OCR2: Json = {**COMMON_DEFAULTS, "size": 384, "min_patches": 1, "max_patches": 12}
IDEFICS3_KEYS = COMMON_KEYS | {"do_image_splitting", "max_image_size", "return_row_col_info", "do_pad"}
IDEFICS3: Json = {
    **COMMON_DEFAULTS,
    "size": {"longest_edge": 4 * 364},
    "resample": LANCZOS,
    "image_mean": HALF,
    "image_std": HALF,
    "do_image_splitting": True,
    "max_image_size": {"longest_edge": 364},
}

# Processors that ask for tiles whatever the file of their image processor says.
_ALWAYS_CUT = ("InternVLProcessor", "AyaVisionProcessor")
# The longest edge that Idefics 3 resizes to, whatever the file says.
_IDEFICS3_LIMIT = 4096


@dataclass(frozen=True)
class AnyResolution:
    """LLaVA-NeXT: the whole image small, then the tiles of the best of several resolutions.

    Attributes:
        resolutions: (height, width) of each.
        tile: Edge of a tile, in pixels.
        small: (height, width) of the small image.
        steps: What is done to the small image and to each tile.
    """

    resolutions: tuple[tuple[int, int], ...]
    tile: int
    small: tuple[int, int]
    steps: ImageConfig

    @classmethod
    def read(cls, reader: ConfigReader) -> AnyResolution:
        """The steps of a file."""
        steps = ImageConfig.read(reader)
        lengths = reader.lengths("size") or {}
        edge = lengths.get("shortest_edge", lengths.get("height", 0))
        if set(lengths) not in ({"shortest_edge"}, {"height", "width"}):
            raise reader.wrong("size", "{shortest_edge} or {height, width}")
        tile = edge if reader.get("crop_size") is None else reader.height_width("crop_size")[0]
        return cls(_read_resolutions(reader), tile, (edge, lengths.get("width", edge)), steps)

    def prepare(self, pixels: UInt8Array) -> PreparedImage:
        """Prepares an image; the first tile is the small image."""
        size = pixels.shape[:2]
        height, width = best_resolution(size, self.resolutions)
        scale_y, scale_x = height / size[0], width / size[1]
        if scale_x < scale_y:
            fitted = (min(math.ceil(size[0] * scale_x), height), width)
        else:
            fitted = (height, min(math.ceil(size[1] * scale_y), width))
        resample = self.steps.resample
        canvas = paste_centred(resize(pixels, *fitted, resample), height, width, (0, 0, 0))
        parts = [resize(pixels, *self.small, resample), *cut(canvas, self.tile, self.tile)]
        grid = (math.ceil(height / self.tile), math.ceil(width / self.tile))
        return PreparedImage(self.steps.prepare_tiles(parts), size, grid)


def _read_resolutions(reader: ConfigReader) -> tuple[tuple[int, int], ...]:
    key = "image_grid_pinpoints"
    value = reader.get(key)
    pairs = value if isinstance(value, (list, tuple)) else []
    result = [tuple(pair) for pair in pairs if isinstance(pair, (list, tuple))]
    is_good = all(len(pair) == 2 and all(map(is_length, pair)) for pair in result)
    if not result or not is_good or len(result) != len(pairs):
        raise reader.wrong(key, "a list of [height, width] in pixels")
    return tuple((pair[0], pair[1]) for pair in result)


def best_resolution(size: tuple[int, int], resolutions: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The resolution that keeps most of an image's pixels, and of those that keep as many the smallest.

    Args:
        size: (height, width) of the image.
        resolutions: (height, width) to choose from; of equally good ones the first.
    """

    def kept_and_wasted(resolution: tuple[int, int]) -> tuple[int, int]:
        height, width = resolution
        scale = min(width / size[1], height / size[0])
        kept = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        return kept, kept - height * width

    return max(resolutions, key=kept_and_wasted)


@dataclass(frozen=True)
class TileGrid:
    """GOT-OCR 2 and InternVL: resized to the grid of tiles whose shape is nearest, then the image small.

    Attributes:
        tile: (height, width) of a tile, in pixels.
        min_tiles: Fewest tiles.
        max_tiles: Most tiles, without the small image.
        resample: Pillow's number of the filter.
        normalize: Bytes to values.
    """

    tile: tuple[int, int]
    min_tiles: int
    max_tiles: int
    resample: int
    normalize: Normalize

    def prepare(self, pixels: UInt8Array) -> PreparedImage:
        """Prepares an image; the last tile is the small image, unless there is one tile only."""
        size = pixels.shape[:2]
        rows, columns = self.grid_of(size)
        check_prepared(rows * columns + 1, *self.tile)
        tiles = cut(resize(pixels, rows * self.tile[0], columns * self.tile[1], self.resample), *self.tile)
        if len(tiles) > 1:
            tiles.append(resize(pixels, *self.tile, self.resample))
        return PreparedImage(self.normalize(*tiles), size, (rows, columns))

    def grid_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) for an image of (height, width)."""
        most, fewest = self.max_tiles, self.min_tiles
        grids = [(w, h) for w in range(1, most + 1) for h in range(1, most // w + 1) if w * h >= fewest]
        grids.sort(key=lambda grid: grid[0] * grid[1])
        best, best_difference = (1, 1), math.inf
        for columns, rows in grids:
            difference = abs(size[1] / size[0] - columns / rows)
            # Of grids of one shape the larger, as long as the image has half as many pixels.
            has_pixels = size[0] * size[1] > 0.5 * self.tile[0] * self.tile[1] * columns * rows
            if difference < best_difference or (difference == best_difference and has_pixels):
                best, best_difference = (rows, columns), difference
        return best


def read_got_ocr2(reader: ConfigReader) -> ImageConfig | TileGrid:
    """The steps of a GOT-OCR 2 file."""
    max_tiles = reader.length("max_patches")
    check_limit(f"{reader.where}: max_patches", "image_tiles", max_tiles, "tiles")
    is_cut = reader.flag("crop_to_patches") or reader.get("processor_class") in _ALWAYS_CUT
    if not is_cut or max_tiles == 1:
        return ImageConfig.read(reader)
    min_tiles = reader.length("min_patches")
    if min_tiles > max_tiles:
        raise reader.wrong("min_patches", f"at most max_patches ({max_tiles})")
    return TileGrid(
        reader.height_width("size"), min_tiles, max_tiles, reader.resample(), Normalize.read(reader)
    )


@dataclass(frozen=True)
class SquareTiles:
    """Idefics 3 and SmolVLM: the longer edge to a length, square tiles, then the image small.

    Attributes:
        resize: (height, width), the length of the longer edge, or None.
        tile: Edge of a tile, in pixels.
        is_split: Whether there are tiles besides the small image.
        resample: Pillow's number of the filter.
        normalize: Bytes to values.
    """

    resize: tuple[int, int] | int | None
    tile: int
    is_split: bool
    resample: int
    normalize: Normalize

    @classmethod
    def read(cls, reader: ConfigReader) -> SquareTiles:
        """The steps of a file."""
        size: tuple[int, int] | int | None = None
        if reader.flag("do_resize"):
            is_edge = set(reader.lengths("size") or {}) == {"longest_edge"}
            size = reader.edge("size", "longest_edge") if is_edge else reader.height_width("size")
        return cls(
            size,
            reader.edge("max_image_size", "longest_edge"),
            reader.flag("do_image_splitting"),
            reader.resample(),
            Normalize.read(reader),
        )

    def prepare(self, pixels: UInt8Array) -> PreparedImage:
        """Prepares an image; the last tile is the small image, unless there is one tile only."""
        size = pixels.shape[:2]
        grid = self.grid_of(size)
        check_prepared(math.prod(grid) + 1, self.tile, self.tile)
        if self.resize is not None:
            pixels = resize(pixels, *self._resized(size), self.resample)
        if self.is_split:
            pixels = resize(pixels, *self._whole_tiles(*pixels.shape[:2]), self.resample)
        small = resize(pixels, self.tile, self.tile, self.resample)
        tiles = [] if grid == (0, 0) else cut(pixels, self.tile, self.tile)
        return PreparedImage(self.normalize(*tiles, small), size, grid)

    def grid_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) for an image of (height, width); (0, 0) where it is not cut."""
        if not self.is_split:
            return 0, 0
        height, width = self._whole_tiles(*self._resized(size))
        grid = (height // self.tile, width // self.tile)
        check_limit("image", "image_tiles", math.prod(grid), "tiles")
        return (0, 0) if grid == (1, 1) else grid

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        if isinstance(self.resize, int):
            return longest_edge_size(size, self.resize)
        return self.resize or size

    def _whole_tiles(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in whole tiles; the shorter edge follows the longer one, rounded up."""
        ratio = width / height
        if width >= height:
            width = math.ceil(width / self.tile) * self.tile
            height = int(width / ratio)
        else:
            height = math.ceil(height / self.tile) * self.tile
            width = int(height * ratio)
        return math.ceil(height / self.tile) * self.tile, math.ceil(width / self.tile) * self.tile


def longest_edge_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Size with a longer edge of this length and a shorter one that is even, up to Idefics 3's limit.

    Args:
        size: (height, width).
        longest: Length of the longer edge, in pixels.
    """
    height, width = size
    ratio = width / height
    if width >= height:
        width, height = longest, int(longest / ratio)
        height = max(1, height + height % 2)
    else:
        height, width = longest, int(longest * ratio)
        width = max(1, width + width % 2)
    ratio = width / height
    if width >= height and width > _IDEFICS3_LIMIT:
        width, height = _IDEFICS3_LIMIT, int(_IDEFICS3_LIMIT / ratio)
    elif height > width and height > _IDEFICS3_LIMIT:
        height, width = _IDEFICS3_LIMIT, int(_IDEFICS3_LIMIT * ratio)
    return max(1, height), max(1, width)


class CutImage:
    """An image in tiles, for an encoder that looks at one at a time; made when the first is asked for.

    Args:
        pixels: RGB (height, width, 3), C-contiguous.
        steps: What cuts it.

    Attributes:
        pixels: The image.
        grid: (rows, columns) of the tiles. The image small comes behind them.
    """

    def __init__(self, pixels: UInt8Array, steps: SquareTiles | TileGrid) -> None:
        self.pixels = pixels
        self.grid: tuple[int, int] = steps.grid_of(pixels.shape[:2])
        self._steps = steps

    @property
    def tiles(self) -> list[Tile]:
        """Row by row, then the image small."""
        return [Tile(self, index) for index in range(self.grid[0] * self.grid[1] + 1)]

    @functools.cached_property
    def pixel_values(self) -> FloatArray:
        """(tiles + 1, 3, height, width), C-contiguous."""
        return self._steps.prepare(self.pixels).pixel_values

    @functools.cached_property
    def digest(self) -> bytes:
        """Of the pixels, worked out once for all tiles."""
        import hashlib

        return hashlib.blake2b(self.pixels.data, digest_size=16).digest()


@dataclass(frozen=True)
class Tile:
    """One tile of an image.

    Attributes:
        image: Shared by its tiles.
        index: Of `CutImage.tiles`.
    """

    image: CutImage
    index: int

    @property
    def pixel_values(self) -> FloatArray:
        """(3, height, width), a view of the image's."""
        tile: FloatArray = self.image.pixel_values[self.index]
        return tile

    def __repr__(self) -> str:
        rows, columns = self.image.grid
        return f"tile {self.index + 1} of {rows} x {columns} + 1"
