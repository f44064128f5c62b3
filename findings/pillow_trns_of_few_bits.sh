#!/usr/bin/env bash
# Pillow ignores the transparent colour (tRNS) of a PNG with grey of 2 bits: convert("RGBA") is opaque everywhere.
#
# Behaviour: PNG's tRNS names one grey value as transparent, for 1, 2, 4, 8 and 16 bits. Of a picture with
# 2 bits no pixel becomes transparent; with 8 bits the same picture is right.
# Seen with Pillow 13.0.0, CPython 3.11, Linux x86-64, 2026-11-28.
# Here: tRNS is read from the file and applied before such pictures are put on white (tests/python/preprocess/test_image_modes.py).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && "$work/env/bin/pip" install -q "pillow==13.0.0"
"$work/env/bin/python" - <<'PY' | tee "$work/seen"
import io, struct, zlib
from PIL import Image

def png(bits, row, transparent):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"tRNS", struct.pack(">H", transparent))]
    parts += [chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts))

alphas = lambda file: list(Image.open(file).convert("RGBA").getchannel("A").tobytes())
# Four pixels with the grey values 0, 1, 2, 3 of 2 bits, and 0, 85, 170, 255 of 8; the second one is the transparent colour.
print("2 bits:", alphas(png(2, bytes([0b00011011]), 1)))
print("8 bits:", alphas(png(8, bytes([0, 85, 170, 255]), 85)))
PY
diff "$work/seen" - <<'SEEN'
2 bits: [255, 255, 255, 255]
8 bits: [255, 0, 255, 255]
SEEN
