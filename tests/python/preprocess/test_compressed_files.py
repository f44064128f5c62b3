"""MP3, Ogg and FLAC files of which libsndfile loses a part in silence: read whole, or told."""

from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import InputError, InputWarning, MultimodalRunner, SpeechRunner, make_audio_input
from executorch_mm.preprocess import load_audio
from executorch_mm.preprocess.mp3_files import count_frames
from speech_cases import FOLDER

soundfile = pytest.importorskip("soundfile")


def noise(frames: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A tone in pieces between noise, so that the bit rate varies."""
    random = np.random.default_rng(seed)
    t = np.arange(frames)
    tone = 0.4 * np.sin(t / 20) * (t // 8000 % 2)
    rough = 0.2 * random.standard_normal((frames, channels)) * (t[:, None] // 11_000 % 2)
    return np.clip(tone[:, None] + rough, -1, 1)


def written(samples: np.ndarray, rate: int, form: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def by_soundfile(data: bytes) -> np.ndarray:
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0]


def quietly(data: bytes) -> np.ndarray:
    """What is read where nothing is to be said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_audio(data).samples


# --- MP3: what the file with its information frame gives is right, as LAME says there where the audio begins
# and ends. Samples are libmpg123's, whose last bit hangs on where the memory for them lies.


def expect_same(samples: np.ndarray, expected: np.ndarray) -> None:
    assert samples.shape == expected.shape
    np.testing.assert_allclose(samples, expected, atol=1e-6)


def mp3(rate: int = 16_000, channels: int = 1, frames: int = 50_000) -> bytes:
    """With a variable bit rate, which is what libsndfile writes unless asked."""
    return written(noise(frames, channels), rate, "MP3", "MPEG_LAYER_III")


def first_frame(data: bytes) -> int:
    """Bytes of the first frame: the next one begins with the same two bytes of sync, version and layer."""
    place = 4
    while data[place : place + 2] != data[:2] or data[place + 3] >> 6 != data[3] >> 6:
        place += 1
    return place


RATES = [8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_without_its_information_frame_is_read_whole_and_in_time(rate: int, channels: int) -> None:
    whole = mp3(rate, channels)
    expected = by_soundfile(whole)
    assert len(expected) == 50_000
    lost = whole[first_frame(whole) :]
    with pytest.warns(InputWarning, match="the MP3 has no information frame: [0-9]+ frames were counted"):
        audio = load_audio(lost)
    assert audio.sampling_rate == rate
    assert 50_000 <= len(audio.samples) < 50_000 + 3 * 1152  # what fills the last frames up stays
    expect_same(audio.samples[:50_000], expected)
    assert len(audio.notes) == 1


def test_libsndfile_alone_loses_most_of_such_a_file() -> None:
    t = np.arange(320_000)
    tone = 0.4 * np.sin(t / 6) * (0.3 + 0.7 * (t // 6000 % 2))
    rough = 0.05 * np.random.default_rng(0).standard_normal(320_000) * (t > 128_000)
    whole = written((tone + rough)[:, None], 16_000, "MP3", "MPEG_LAYER_III")
    lost = whole[first_frame(whole) :]
    assert len(by_soundfile(whole)) == 320_000
    assert len(by_soundfile(lost)) < 160_000  # libsndfile 1.2.2
    with pytest.warns(InputWarning):
        samples = load_audio(lost).samples
    assert 320_000 <= len(samples) < 320_000 + 3 * 576
    expect_same(samples[:320_000], by_soundfile(whole))


@pytest.mark.parametrize("channels", [1, 2])
def test_a_long_mp3_is_read_without_noise_between_blocks(channels: int) -> None:
    whole = mp3(16_000, channels, frames=300_000)
    expect_same(quietly(whole), by_soundfile(whole))


def test_an_mp3_of_one_bit_rate_needs_no_information_frame() -> None:
    whole = (Path(__file__).resolve().parents[2] / "data" / "audio" / "constant.mp3").read_bytes()
    samples = quietly(whole[first_frame(whole) :])
    assert 24_000 <= len(samples) < 24_000 + 3 * 576
    expect_same(samples[:24_000], by_soundfile(whole))


@pytest.mark.parametrize("front", [b"", b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)])
@pytest.mark.parametrize("behind", [b"", b"TAG" + bytes(125), b"APETAGEX" + bytes(24)])
def test_tags_of_an_mp3_are_stepped_over(front: bytes, behind: bytes) -> None:
    whole = mp3()
    expect_same(quietly(front + whole + behind), by_soundfile(whole))
    with pytest.warns(InputWarning):
        audio = load_audio(front + whole[first_frame(whole) :] + behind)
    expect_same(audio.samples[:50_000], by_soundfile(whole))


@pytest.mark.parametrize("cut", [1, 17, 50, 100])
def test_an_mp3_that_begins_within_a_frame_is_read_from_the_next_one(cut: int) -> None:
    whole = mp3()
    with pytest.warns(InputWarning):
        audio = load_audio(whole[cut:])
    expect_same(audio.samples[:50_000], by_soundfile(whole))


def test_mp3_files_one_after_the_other_are_all_read() -> None:
    first, second = mp3(), mp3(frames=30_000)
    samples = quietly(first + second)
    assert abs(len(samples) - 80_000) < 6 * 1152
    expect_same(samples[:50_000], by_soundfile(first))
    assert len(by_soundfile(first + second)) == 50_000


def test_an_mp3_that_is_cut_short_is_told() -> None:
    whole = mp3()
    with pytest.warns(
        InputWarning, match="the MP3 is cut short: its first frame says [0-9]+ frames, [0-9]+ are"
    ):
        audio = load_audio(whole[: len(whole) // 2])
    expect_same(audio.samples[:10_000], by_soundfile(whole)[:10_000])


def test_an_mp3_in_a_wav_file_is_read_as_one() -> None:
    payload = mp3(48_000)
    fields = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 48_000, 16_000, 1, 0, 12, 1, 2, 1152, 1, 0)
    chunks = [(b"fmt ", fields), (b"data", payload)]
    content = b"WAVE" + b"".join(name + struct.pack("<I", len(part)) + part for name, part in chunks)
    expect_same(quietly(b"RIFF" + struct.pack("<I", len(content)) + content), by_soundfile(payload))


@pytest.mark.parametrize(
    "trap", [b"\xff" * 3_000_000, b"\xff\xfb\x90\xc4" * 500_000, b"ID3\x04\0\0\0\0\0\0" * 100_000]
)
def test_what_looks_like_frames_everywhere_costs_little(trap: bytes) -> None:
    whole = mp3()
    assert count_frames(trap) is None or count_frames(trap).number < 10  # type: ignore[union-attr]
    frames = count_frames(whole + trap)
    assert frames is not None
    assert abs(frames.number - count_frames(whole).number) <= 1  # type: ignore[union-attr]


# --- Ogg


def ogg_checksum(page: bytes) -> int:
    """RFC 3533, appendix: CRC-32 of the polynomial 0x04c11db7, not reflected."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = ((value << 1) ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value


def with_noted_rate(opus: bytes, rate: int) -> bytes:
    """Another rate in the header of an Opus file, which is no more than a note (RFC 7845, 5.1)."""
    head = opus.index(b"OpusHead")
    end = opus.index(b"OggS", 4)
    page = bytearray(opus[:end])
    page[head + 12 : head + 16] = struct.pack("<I", rate)
    page[22:26] = bytes(4)
    page[22:26] = struct.pack("<I", ogg_checksum(page))
    return bytes(page) + opus[end:]


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_that_notes_no_rate_is_decoded_at_its_full_rate(channels: int) -> None:
    whole = written(noise(100_000, channels), 48_000, "OGG", "OPUS")
    silent = with_noted_rate(whole, 0)
    with soundfile.SoundFile(io.BytesIO(silent)) as file:
        assert file.samplerate == 8000  # libsndfile 1.2.2
    audio = load_audio(silent)
    assert (audio.sampling_rate, audio.notes) == (48_000, ())
    np.testing.assert_array_equal(quietly(silent), by_soundfile(whole))
    assert len(audio.samples) == 100_000


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 44_100, 48_000])
def test_opus_that_notes_a_rate_is_decoded_as_libsndfile_does(rate: int) -> None:
    noted = with_noted_rate(written(noise(100_000), 48_000, "OGG", "OPUS"), rate)
    np.testing.assert_array_equal(quietly(noted), by_soundfile(noted))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_files_one_after_the_other_are_all_read(subtype: str) -> None:
    parts = [written(noise(n, c, n), 48_000, "OGG", subtype) for n, c in ((90_000, 1), (50_000, 2), (960, 1))]
    expected = np.concatenate([by_soundfile(part) for part in parts])
    np.testing.assert_array_equal(quietly(b"".join(parts)), expected)
    assert len(expected) == 140_960


def test_ogg_files_of_several_rates_get_that_of_the_first() -> None:
    pytest.importorskip("soxr")
    parts = [written(noise(n), rate, "OGG", "VORBIS") for n, rate in ((32_000, 16_000), (44_100, 44_100))]
    audio = load_audio(b"".join(parts))
    assert audio.sampling_rate == 16_000
    assert len(audio.samples) == 48_000
    np.testing.assert_array_equal(audio.samples[:32_000], by_soundfile(parts[0]))


def test_opus_files_without_a_rate_one_after_the_other() -> None:
    parts = [written(noise(n), 48_000, "OGG", "OPUS") for n in (48_000, 96_000)]
    expected = np.concatenate([by_soundfile(part) for part in parts])
    np.testing.assert_array_equal(quietly(b"".join(with_noted_rate(part, 0) for part in parts)), expected)


# --- FLAC


def with_declared(flac: bytes, number: int) -> bytes:
    """Another number of samples in STREAMINFO: the last 36 of 64 bits from byte 18 on (RFC 9639, 8.2)."""
    fields = int.from_bytes(flac[18:26], "big") >> 36 << 36 | number
    return flac[:18] + fields.to_bytes(8, "big") + flac[26:]


@pytest.mark.parametrize("declared", [0, 1, 4096, 60_000, 77_776, 77_777])
@pytest.mark.parametrize(
    ("channels", "subtype"), [(1, "PCM_16"), (2, "PCM_24"), (6, "PCM_16"), (1, "PCM_S8")]
)
def test_a_flac_is_read_whole_whatever_its_header_says(declared: int, channels: int, subtype: str) -> None:
    whole = written(noise(77_777, channels), 44_100, "FLAC", subtype)
    expected = by_soundfile(whole)
    assert len(expected) == 77_777
    for tag in (b"", b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)):
        np.testing.assert_array_equal(quietly(tag + with_declared(whole, declared)), expected)


@pytest.mark.parametrize("frames", [1, 15, 16, 4095, 4096, 4097])
def test_a_short_flac_of_unknown_length_is_read(frames: int) -> None:
    whole = written(noise(frames), 16_000, "FLAC", "PCM_16")
    np.testing.assert_array_equal(quietly(with_declared(whole, 0)), by_soundfile(whole))


@pytest.mark.parametrize("behind", [b"TAG" + bytes(125), bytes(100), b"anything else" * 20])
def test_what_stands_behind_a_flac_is_no_part_of_it(behind: bytes) -> None:
    whole = written(noise(30_000), 16_000, "FLAC", "PCM_16")
    np.testing.assert_array_equal(quietly(whole + behind), by_soundfile(whole))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_flac_that_is_cut_short_is_read_to_its_last_whole_frame_and_told(share: float) -> None:
    whole = written(noise(100_000), 44_100, "FLAC", "PCM_16")
    with pytest.warns(
        InputWarning, match="the FLAC is cut short: its header says 100000 samples, [0-9]+ are"
    ):
        audio = load_audio(whole[: int(len(whole) * share)])
    size = len(audio.samples)
    assert size % 4096 == 0
    assert size > 0
    np.testing.assert_array_equal(audio.samples, by_soundfile(whole)[:size])


@pytest.mark.parametrize("declared", [10**9, 2**35, 2**36 - 1])
def test_a_flac_that_claims_more_than_the_limits_is_refused_before_it_is_read(declared: int) -> None:
    flac = with_declared(written(noise(30_000), 16_000, "FLAC", "PCM_16"), declared)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"at most [0-9]+ (seconds|samples), got [0-9.]+; set_media_limits"):
        load_audio(flac)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize("place", [3000, 20_000, 60_000])
def test_a_flac_that_is_damaged_inside_is_an_input_error(place: int) -> None:
    whole = written(noise(100_000), 44_100, "FLAC", "PCM_16")
    with pytest.raises(InputError, match="not audio that libsndfile reads"):
        load_audio(whole[:place] + bytes(300) + whole[place + 300 :])


# --- others


def test_a_file_of_which_libsndfile_reads_a_part_is_told() -> None:
    au = bytearray(written(noise(20_000), 16_000, "AU", "PCM_16"))
    struct.pack_into(">I", au, 8, 1000)
    with pytest.warns(
        InputWarning, match="libsndfile read 1000 bytes of samples, as the header says, of the 40024"
    ):
        audio = load_audio(bytes(au))
    assert len(audio.samples) == 500


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("AIFF", "PCM_16"), ("AU", "ULAW"), ("CAF", "PCM_24"), ("W64", "FLOAT"), ("VOC", "PCM_16"),
     ("NIST", "PCM_16"), ("AIFF", "IMA_ADPCM"), ("CAF", "ALAC_16"), ("OGG", "VORBIS"),
     ("MP3", "MPEG_LAYER_III"), ("FLAC", "PCM_24")],
)  # fmt: skip
def test_whole_files_of_every_kind_are_what_libsndfile_makes_of_them(form: str, subtype: str) -> None:
    data = written(noise(150_000), 16_000, form, subtype)
    expect_same(quietly(data), by_soundfile(data))


@pytest.mark.parametrize(
    "form", [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
)
@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_end_in_samples_or_an_input_error(form: tuple[str, str], seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = written(noise(20_000), 16_000, *form)
    for _ in range(25):
        data = bytearray(whole[: random.integers(1, len(whole))] if random.random() < 0.4 else whole)
        for place in random.integers(
            0, min(len(data), random.choice([100, len(data)])), random.integers(1, 6)
        ):
            data[place] = random.integers(0, 256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            try:
                audio = load_audio(bytes(data))
            except InputError:
                continue
        assert audio.samples.dtype == np.float32
        assert len(audio.samples) >= 1


# --- what is told comes with the request


@pytest.fixture
def lost_mp3() -> bytes:
    whole = mp3(16_000, frames=32_000)
    return whole[first_frame(whole) :]


def test_what_may_be_wrong_with_an_audio_clip_is_in_the_stats_of_its_request(
    runner: MultimodalRunner, lost_mp3: bytes
) -> None:
    runner.generate_text("red", max_new_tokens=1)
    assert runner.stats.input_notes == ()
    assert runner.stats.to_dict()["input_notes"] == []
    with pytest.warns(InputWarning):
        part = make_audio_input(lost_mp3)
    [note] = part.notes
    runner.reset()
    runner.generate_text([part, "what?"], max_new_tokens=2)
    assert runner.stats.input_notes == (note,)
    assert runner.stats.to_dict()["input_notes"] == [note]
    runner.generate_text("red", max_new_tokens=1)
    assert runner.stats.input_notes == ()


def test_what_may_be_wrong_with_speech_is_in_its_stats(lost_mp3: bytes) -> None:
    with SpeechRunner(FOLDER / "kv.pte", num_threads=1) as speech:
        with pytest.warns(InputWarning, match="no information frame"):
            result = speech.transcribe(lost_mp3, language="en", temperature=0.0, max_new_tokens=3)
        [note] = result.stats.input_notes
        assert note.startswith("the MP3 has no information frame")
        samples = np.zeros(16_000, np.float32)
        assert speech.transcribe(samples, sampling_rate=16_000).stats.input_notes == ()
