"""Audio files of every kind that libsndfile reads; what it would lose in silence is put right, or told."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from executorch_mm._files.extras import import_extra
from executorch_mm.errors import InputError
from executorch_mm.preprocess.flac_files import read_flac, with_length
from executorch_mm.preprocess.mixdown import Mixdown, check_length
from executorch_mm.preprocess.mp3_files import with_true_length
from executorch_mm.preprocess.ogg_files import links
from executorch_mm.preprocess.wav_files import MPEG_LAYER_3, WavFile
from executorch_mm.preprocess.waveform import EXTRA, Waveform

_BLOCK_SAMPLES = 2**16
# 2**63 - 1 stands for a length that libsndfile does not know.
_MOST_FRAMES = 2**62
# So much, in seconds, is lost at the end of many files, and no word with it.
_NOTED_SECONDS = 0.1
# Bytes of a sample where it is not compressed.
_WIDTHS = {"PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4}
_FLOAT_WIDTHS = {"FLOAT": 4, "DOUBLE": 8}


def read_with_soundfile(data: bytes, wav: WavFile | None, what: str) -> Waveform:
    """Reads an audio file.

    Args:
        data: The file.
        wav: What it holds, if it is a WAV file.
        what: The file, for error messages.

    Raises:
        InputError: It is no audio, damaged, or larger than the limits allow.
        MissingDependencyError: soundfile is not installed.
    """
    reader = _Reader(what)
    if wav is not None:
        reader.note(wav.note)
        data = bytes(wav.samples) if wav.format.code == MPEG_LAYER_3 else wav.rewritten()
    waveforms = [reader.read(part) for part in links(data) or [data]]
    samples, rate = waveforms[0].samples, waveforms[0].sampling_rate
    if len(waveforms) > 1:
        seconds = sum(len(waveform.samples) / waveform.sampling_rate for waveform in waveforms)
        check_length(what, round(seconds * rate), 1, rate)
        samples = np.concatenate([waveform.resampled(rate).samples for waveform in waveforms])
    return Waveform(samples, rate, tuple(reader.notes))


class _Reader:
    """Reads the parts of a file.

    Args:
        what: The file, for error messages.

    Attributes:
        notes: What may be wrong with what was read.
    """

    def __init__(self, what: str) -> None:
        self.notes: list[str] = []
        self._what = what
        self._soundfile: Any = import_extra(
            "soundfile", EXTRA, f"{what}: reading a file that is no WAV of plain samples"
        )

    def note(self, note: str | None) -> None:
        """Adds a note, if there is one."""
        if note is not None:
            self.notes.append(note)

    def read(self, data: bytes) -> Waveform:
        """Reads one part.

        Raises:
            InputError: It is no audio, damaged, or larger than the limits allow.
        """
        flac = read_flac(data)
        if flac is not None and flac.declared < flac.counted:
            data = with_length(data, flac.start, flac.counted)
        try:
            return self._decoded(data)
        except self._soundfile.SoundFileError as error:
            if flac is None or flac.counted >= flac.declared:
                raise self._refusal(error) from error
        try:
            waveform = self._decoded(with_length(data, flac.start, flac.counted))
        except self._soundfile.SoundFileError as error:
            raise self._refusal(error) from error
        self.note(f"the FLAC is cut short: its header says {flac.declared} samples, {flac.counted} are there")
        return waveform

    def _refusal(self, error: Exception) -> InputError:
        reason = getattr(error, "error_string", "") or "damaged"
        return InputError(f"{self._what}: not audio that libsndfile reads ({reason})")

    def _decoded(self, data: bytes) -> Waveform:
        with self._opened(data) as file:
            channels, rate = file.channels, int(file.samplerate)
            mix = Mixdown(self._what, channels, rate, is_scaled=file.subtype not in _FLOAT_WIDTHS)
            expected = file.frames if file.frames < _MOST_FRAMES else 0
            mix.expect(expected)
            # soundfile seeks behind each block, and libmpg123 then lacks the bits that earlier frames have
            # kept for the next ones: blocks of an MP3 begin with noise. Its length has been counted.
            size = expected if file.format == "MP3" and expected else max(1, _BLOCK_SAMPLES // channels)
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                mix.add(block)
            width = (_WIDTHS | _FLOAT_WIDTHS).get(file.subtype, 0)
        samples = mix.samples()
        read, is_told = mix.num_frames, bool(self.notes)
        if expected - read > _NOTED_SECONDS * rate and not is_told:
            self.note(f"libsndfile read {read} of the {expected} samples that the file says")
        if width and len(data) > 2 * (read * channels * width) + 2**12:
            self.note(
                f"libsndfile read {read * channels * width} bytes of samples, as the header says, of the "
                f"{len(data)} bytes of the file"
            )
        return Waveform(samples, rate)

    def _opened(self, data: bytes) -> Any:
        """The file, an MP3 so that all of it is read.

        Raises:
            soundfile.SoundFileError: libsndfile does not know it.
        """
        try:
            file = self._soundfile.SoundFile(io.BytesIO(data))
        except self._soundfile.SoundFileError:
            whole, note = with_true_length(data)  # an MP3 whose first bytes are those of no frame?
            if whole is data:
                raise
        else:
            if file.format != "MP3":
                return file
            whole, note = with_true_length(data)
            if whole is not data:
                file.close()
        self.note(note)
        return file if whole is data else self._soundfile.SoundFile(io.BytesIO(whole))
