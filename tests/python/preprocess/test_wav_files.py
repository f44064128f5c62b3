"""WAV files of every header: the samples that libsndfile finds, or more where it loses some, bit by bit."""

from __future__ import annotations

import io
import struct
import sys
import warnings
import wave

import numpy as np
import pytest

from executorch_mm import InputError, InputWarning, MissingDependencyError, make_audio_input
from executorch_mm.preprocess import load_audio

RATE = 16000
FRAMES = 4001
# The chunk "LIST" of a recorder, and one of odd length.
LIST = b"INFOISFT\x0e\0\0\0some recorder\0"
ODD = b"INFOISFT\x05\0\0\0abcd\0"
MICROSOFT, AMBISONICS = "0000 0000 1000 8000 00aa00389b71", "0000 2107 d311 8644 c8c1ca000000"
UNKNOWN = 2**32 - 1
PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE


def body(code: int, bits: int, channels: int = 1, order: str = "<", frames: int = FRAMES) -> bytes:
    """Samples of a format: floats in -1..1, else every byte that there is."""
    random = np.random.default_rng(bits)
    if code == FLOAT:
        return random.uniform(-1, 1, frames * channels).astype(f"{order}f{bits // 8}").tobytes()
    return random.integers(0, 256, frames * channels * -(-bits // 8)).astype(np.uint8).tobytes()


def chunk(name: bytes, content: bytes, order: str = "<", size: int | None = None, pad: bool = True) -> bytes:
    length = len(content) if size is None else size
    return name + struct.pack(f"{order}I", length) + content + b"\0" * (len(content) % 2 and pad)


def fmt(
    code: int = PCM, bits: int = 16, channels: int = 1, rate: int = RATE, order: str = "<", name: str = "",
    align: int | None = None, more: bytes = b"",
) -> bytes:  # fmt: skip
    """The chunk "fmt ", extensible with a `name`."""
    step = channels * -(-bits // 8) if align is None else align
    fields = (
        EXTENSIBLE if name else code,
        channels,
        rate,
        rate * step % 2**32,
        step,
        -(-bits // 8) * 8 if name else bits,
    )
    content = struct.pack(f"{order}HHIIHH", *fields) + more
    if name:
        tail = bytes.fromhex(name)
        numbers = struct.unpack("<HHH", tail[:6])
        content += struct.pack(f"{order}HHIHHHH", 22, bits, 0, code, *numbers) + tail[6:]
    return chunk(b"fmt ", content, order)


def riff(*chunks: bytes, mark: bytes = b"RIFF", size: int | None = None) -> bytes:
    content = b"WAVE" + b"".join(chunks)
    return (
        mark
        + struct.pack(">I" if mark == b"RIFX" else "<I", len(content) if size is None else size)
        + content
    )


def expected_by_soundfile(data: bytes) -> np.ndarray:
    soundfile = pytest.importorskip("soundfile")
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


SAMPLES = body(PCM, 16)
DATA = chunk(b"data", SAMPLES)

FORMATS = [
    (PCM, 8), (PCM, 12), (PCM, 16), (PCM, 20), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64), (A_LAW, 8),
    (MU_LAW, 8),
]  # fmt: skip


@pytest.mark.parametrize(("code", "bits"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("kind", ["RIFF", "RIFX", "extensible", "ambisonic", "18 bytes", "RF64"])
def test_samples_of_every_format_are_libsndfiles_bit_by_bit(
    code: int, bits: int, channels: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ">" if kind == "RIFX" else "<"
    samples = body(code, bits, channels, order)
    name = {"extensible": MICROSOFT, "ambisonic": AMBISONICS if code in (PCM, FLOAT) else MICROSOFT}.get(
        kind, ""
    )
    head = fmt(code, bits, channels, order=order, name=name, more=b"\0\0" if kind == "18 bytes" else b"")
    if kind == "RF64":
        sizes = struct.pack("<QQQI", len(samples) + 100, len(samples), FRAMES, 0)
        data = riff(
            chunk(b"ds64", sizes), head, chunk(b"data", samples, size=UNKNOWN), mark=b"RF64", size=UNKNOWN
        )
    else:
        mark = b"RIFX" if kind == "RIFX" else b"RIFF"
        data = riff(head, chunk(b"data", samples, order), mark=mark)
    expected = expected_by_soundfile(data)
    assert len(expected) == FRAMES
    monkeypatch.setitem(sys.modules, "soundfile", None)  # which is not needed
    audio = load_audio(data)
    assert (audio.sampling_rate, audio.notes) == (RATE, ())
    np.testing.assert_array_equal(audio.samples, expected)


HEADERS = {
    "plain": riff(fmt(), DATA),
    "RIFF 0": riff(fmt(), DATA, size=0),
    "RIFF 4": riff(fmt(), DATA, size=4),
    "RIFF 36": riff(fmt(), DATA, size=36),
    "RIFF -1": riff(fmt(), DATA, size=UNKNOWN),
    "RIFF 36, LIST in front": riff(fmt(), chunk(b"LIST", LIST), DATA, size=36),
    "RIFF 8, JUNK in front": riff(fmt(), chunk(b"JUNK", bytes(28)), DATA, size=8),
    "RIFF too large": riff(fmt(), DATA, size=10**6),
    "data -1": riff(fmt(), chunk(b"data", SAMPLES, size=UNKNOWN)),
    "data 2**31 - 1": riff(fmt(), chunk(b"data", SAMPLES, size=2**31 - 1)),
    "data too large": riff(fmt(), chunk(b"data", SAMPLES, size=len(SAMPLES) + 1000)),
    "RIFF 36, data -1": riff(fmt(), chunk(b"data", SAMPLES, size=UNKNOWN), size=36),
    "RIFF 36, data -1, LIST in front": riff(
        fmt(), chunk(b"LIST", LIST), chunk(b"data", SAMPLES, size=UNKNOWN), size=36
    ),
    "RIFF 8, data 0": riff(fmt(), chunk(b"data", SAMPLES, size=0), size=8),
    "JUNK before the format": riff(chunk(b"JUNK", bytes(28)), fmt(), DATA),
    "unknown chunk in front": riff(fmt(), chunk(b"abcd", bytes(10)), DATA),
    "odd LIST in front": riff(fmt(), chunk(b"LIST", ODD), DATA),
    "empty LIST in front": riff(fmt(), chunk(b"LIST", b""), DATA),
    "fact in front": riff(fmt(), chunk(b"fact", struct.pack("<I", FRAMES)), DATA),
    "many in front": riff(fmt(), *[chunk(b"JUNK", bytes(n)) for n in range(2, 60, 2)], DATA),
    "LIST behind": riff(fmt(), DATA, chunk(b"LIST", LIST)),
    "odd LIST behind": riff(fmt(), DATA, chunk(b"LIST", ODD)),
    "unknown chunk behind": riff(fmt(), DATA, chunk(b"abcd", bytes(10))),
    "LIST behind, RIFF 36": riff(fmt(), DATA, chunk(b"LIST", LIST), size=36),
    "ID3v1 behind": riff(fmt(), DATA) + b"TAG" + bytes(125),
    "junk behind": riff(fmt(), DATA) + b"\x01\x02\x03\x04" * 50,
    "zeros behind": riff(fmt(), DATA) + bytes(4096),
    "one byte behind": riff(fmt(), DATA) + b"\x07",
    "odd number of bytes": riff(fmt(), chunk(b"data", SAMPLES + b"\x07")),
    "odd bytes of one byte": riff(fmt(bits=8), chunk(b"data", SAMPLES[:FRAMES])),
    "block of 0 bytes": riff(fmt(align=0), DATA),
    "block of 4 bytes": riff(fmt(align=4), DATA),
    "format of 40 bytes": riff(fmt(more=bytes(24)), DATA),
    "cut in a sample": riff(fmt(channels=2), DATA)[:-1001],
    "192 kHz": riff(fmt(rate=192_000), DATA),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_every_sample_is_read_whatever_the_header_says(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is lost, so nothing is said
        audio = load_audio(HEADERS[name])
    np.testing.assert_array_equal(audio.samples, expected_by_soundfile(HEADERS[name]))


WHOLE = np.frombuffer(SAMPLES, "<i2").astype(np.float32) / 32768
# Headers whose samples libsndfile 1.2.2 does not read, or not all of them, with what is true of them.
BEYOND_LIBSNDFILE = {
    "data 0": riff(fmt(), chunk(b"data", SAMPLES, size=0)),
    "RIFF 0, data 0": riff(fmt(), chunk(b"data", SAMPLES, size=0), size=0),
    "RIFF 36, data 0, LIST in front": riff(
        fmt(), chunk(b"LIST", LIST), chunk(b"data", SAMPLES, size=0), size=36
    ),
    "RIFF -1, data 0": riff(fmt(), chunk(b"data", SAMPLES, size=0), size=UNKNOWN),
    "data -1, LIST behind": riff(fmt(), chunk(b"data", SAMPLES, size=UNKNOWN), chunk(b"LIST", LIST)),
    "data 0, two chunks behind": riff(
        fmt(), chunk(b"data", SAMPLES, size=0), chunk(b"LIST", LIST), chunk(b"id3 ", bytes(20))
    ),
    "two chunks of samples": riff(fmt(), chunk(b"data", SAMPLES[:4000]), chunk(b"data", SAMPLES[4000:])),
    "an empty chunk of samples": riff(fmt(), chunk(b"data", b""), DATA),
    "odd LIST without padding": riff(fmt(), chunk(b"LIST", ODD, pad=False), DATA),
    "unfinished RF64": riff(
        chunk(b"ds64", bytes(28)), fmt(), chunk(b"data", SAMPLES, size=UNKNOWN), mark=b"RF64", size=UNKNOWN
    ),
    "BW64": riff(
        chunk(b"ds64", struct.pack("<QQQI", 9000, len(SAMPLES), FRAMES, 0)),
        fmt(), chunk(b"data", SAMPLES, size=UNKNOWN), mark=b"BW64", size=UNKNOWN,
    ),
    "ID3v2 in front": b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + riff(fmt(), DATA),
}  # fmt: skip


@pytest.mark.parametrize("name", BEYOND_LIBSNDFILE)
def test_samples_that_libsndfile_loses_are_read(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio = load_audio(BEYOND_LIBSNDFILE[name])
    np.testing.assert_array_equal(audio.samples, WHOLE)


@pytest.mark.parametrize("declared", [36, 100, 2000, 4000, 4802])
def test_samples_behind_those_that_the_header_counts_are_read_and_told(declared: int) -> None:
    data = riff(fmt(), chunk(b"data", SAMPLES, size=declared), size=36)
    with pytest.warns(InputWarning, match=f"the header says {declared} bytes of samples, .*: 8002 were read"):
        audio = load_audio(data)
    np.testing.assert_array_equal(audio.samples, WHOLE)
    assert len(audio.notes) == 1
    assert make_audio_input(audio).notes == audio.notes


def test_another_file_behind_is_told() -> None:
    with pytest.warns(InputWarning, match="behind it lies another WAV file, which was not read"):
        audio = load_audio(HEADERS["plain"] * 2)
    np.testing.assert_array_equal(audio.samples, WHOLE)


def test_files_of_the_standard_library_are_read_without_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for width, channels in ((1, 1), (2, 1), (2, 2), (3, 2), (4, 1)):
        samples = body(PCM, 8 * width, channels)
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setparams((channels, width, 22050, 0, "NONE", ""))
            writer.writeframes(samples)
        with wave.open(io.BytesIO(file.getvalue())) as reader:
            frames = reader.readframes(reader.getnframes())
        numbers = [
            int.from_bytes(frames[i : i + width], "little", signed=width > 1) - 128 * (width == 1)
            for i in range(0, len(frames), width)
        ]
        audio = load_audio(file.getvalue())
        expected = np.reshape(numbers, (-1, channels)).mean(axis=1) / 2.0 ** (8 * width - 1)
        np.testing.assert_allclose(audio.samples, expected, atol=1e-7)


def test_a_format_that_needs_soundfile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for head in (fmt(code=2, bits=4), fmt(code=0x31, bits=0), fmt(bits=24, align=4), fmt(code=0x55, bits=0)):
        with pytest.raises(MissingDependencyError, match=r"no WAV of plain samples.*executorch_mm\[audio\]"):
            load_audio(riff(head, DATA))


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32"])
@pytest.mark.parametrize("size", [None, 0, 2**32 - 1])
def test_compressed_wav_files_are_read_by_soundfile_whole(subtype: str, size: int | None) -> None:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, WHOLE / 4, RATE, format="WAV", subtype=subtype)
    data = file.getvalue()
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    if size is not None:  # never written at the end
        place = data.index(b"data") + 4
        data = data[:place] + struct.pack("<I", size) + data[place + 4 :]
    np.testing.assert_array_equal(load_audio(data).samples, expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (riff(fmt(), chunk(b"data", b"")), "an audio clip with samples, got none"),
        (riff(fmt(), chunk(b"data", b"\x01")), "an audio clip with samples, got none"),
        (riff(fmt(), b"data"), "libsndfile"),
        (riff(DATA, fmt()), "libsndfile"),
        (riff(fmt()), "libsndfile"),
        (riff(fmt(channels=0), DATA), "libsndfile"),
        (riff(fmt(rate=0), DATA), "at least 1000 samples per second, got 0"),
        (riff(fmt(rate=2**32 - 1), DATA), "at most 768000 samples per second, got 4294967295"),
        (riff(fmt(bits=0), DATA), "libsndfile"),
        (riff(fmt(bits=64), DATA), "libsndfile"),
        (riff(fmt(code=FLOAT, bits=16), DATA), "libsndfile"),
        (riff(fmt()[:20], DATA), "libsndfile"),
        (b"RIFF\0\0\0\0WAVE", "libsndfile"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "libsndfile"),
    ],
)
def test_a_header_without_an_audio_clip_is_an_input_error(data: bytes, message: str) -> None:
    pytest.importorskip("soundfile")
    with pytest.raises(InputError, match=message):
        load_audio(data)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_header_ends_in_samples_or_an_input_error(seed: int) -> None:
    pytest.importorskip("soundfile")
    random = np.random.default_rng(seed)
    whole = [*HEADERS.values()][seed % len(HEADERS)]
    for _ in range(25):
        data = bytearray(whole[: random.integers(1, len(whole))] if random.random() < 0.3 else whole)
        for place in random.integers(0, min(len(data), 120), random.integers(1, 5)):
            data[place] = random.integers(0, 256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            try:
                audio = load_audio(bytes(data))
            except InputError:
                continue
        assert audio.samples.dtype == np.float32
        assert 1 <= len(audio.samples) <= len(data)


def test_floats_of_a_file_that_are_no_audio_are_refused() -> None:
    integers = (np.sin(np.arange(FRAMES) / 20) * 12000).astype("<f4")
    for values, message in (
        (integers, r"floats in -1\.\.1.*got -1\.2e\+04\.\.1\.2e\+04: likely samples of 16 bits"),
        (integers * 65536, "likely samples of 24 or 32 bits"),
        (np.array([0, np.nan], "<f4"), "NaN or infinity"),
    ):
        with pytest.raises(InputError, match=message):
            load_audio(riff(fmt(FLOAT, 32), chunk(b"data", values.tobytes())))
    too_large = np.array([0, 1e300], "<f8")
    with pytest.raises(InputError, match="NaN or infinity"):
        load_audio(riff(fmt(FLOAT, 64), chunk(b"data", too_large.tobytes())))
    loud = np.array([-1.9, 0, 7.5], "<f4")
    np.testing.assert_array_equal(
        load_audio(riff(fmt(FLOAT, 32), chunk(b"data", loud.tobytes()))).samples, loud
    )
