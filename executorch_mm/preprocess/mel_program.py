"""Features of audio by a program of its own, the .pte file that ExecuTorch publishes beside audio models."""

from __future__ import annotations

import os

import numpy as np

from executorch_mm._files.paths import checked_path
from executorch_mm._loading.handle import Handle
from executorch_mm._loading.loaded_model import LoadedModel
from executorch_mm._loading.methods import find_method, load_methods
from executorch_mm.arrays import AnyArray
from executorch_mm.errors import ContractError, InputError
from executorch_mm.preprocess.audio import to_waveform
from executorch_mm.preprocess.sources import Fetch
from executorch_mm.preprocess.steps import FloatArray
from executorch_mm.preprocess.waveform import Waveform, waveform_of

_METHOD = "forward"
CHUNK_FRAMES = 3000  # 30 s


class MelProgram(LoadedModel):
    """Makes features of audio with a .pte file, such as `executorch.extension.audio.mel_spectrogram` writes.

    Its method `forward` takes float samples (num_samples,) and gives (chunks, bins, frames), or all chunks in
    a row, (1, bins, chunks * frames). Calls of several
    threads take turns. A program cannot be used in a forked child (`ForkError`): load one in each process.

    Args:
        path: The .pte file.
        chunk_frames: Frames in a chunk of the encoder; features in a row are cut to it.
        sampling_rate: Samples per second that it was exported for, which the file does not say.

    Attributes:
        bins: Number of mel filters.
        max_samples: Length of the longest audio clip.

    Raises:
        ModelLoadError: The file cannot be read, verified or initialised.
        ContractError: It has no such method.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, chunk_frames: int = CHUNK_FRAMES, sampling_rate: int = 16000
    ) -> None:
        self._path = str(checked_path(path, "audio_preprocessor"))
        methods, _ = load_methods(path, num_threads=1)
        forward = find_method(methods, (_METHOD,), "float", (1,))
        if forward is None:
            raise ContractError(f"{self._path}: expected a method {_METHOD}, got {sorted(methods.methods)}")
        self._handle = Handle(methods, "program")
        output = forward.outputs[0]
        if "float" not in output.dtype or len(output.shape) != 3:
            raise ContractError(
                f"{self._path}: {_METHOD}: expected an output of floats, (chunks, bins, frames), got {output}"
            )
        self.bins: int = output.shape[1]
        self.max_samples: int = forward.inputs[0].shape[0]
        self._chunk_frames = chunk_frames
        self._sampling_rate = sampling_rate

    def __repr__(self) -> str:
        return f"MelProgram({self._path!r})"

    def close(self) -> None:
        """Frees the program, unless this is a forked child. Later calls raise `ExecutorchMMError`."""
        self._handle.close()

    def __call__(
        self, audio: object, sampling_rate: int | None = None, *, fetch: Fetch | None = None
    ) -> FloatArray:
        """Makes features of an audio clip; parameters and result are those of `AudioProcessor.__call__`.

        Raises:
            InputError: As there; or the audio is longer than the program takes.
            MissingDependencyError: As there.
            ExecutionError: The program failed.
            ForkError: This is a forked child.
        """
        return self.features(to_waveform(audio, sampling_rate, fetch=fetch))

    def features(self, waveform: Waveform) -> FloatArray:
        """Makes features of an audio clip; see `__call__`.

        Raises:
            InputError: The audio is longer than the program takes.
        """
        samples = waveform.resampled(self._sampling_rate).samples
        if len(samples) > self.max_samples:
            seconds, most = (n / self._sampling_rate for n in (len(samples), self.max_samples))
            raise InputError(
                f"audio: expected at most {self.max_samples} samples ({most:g} s), as {self._path} takes, "
                f"got {len(samples)} ({seconds:g} s)"
            )
        made = self._handle.get().run(_METHOD, [np.ascontiguousarray(samples)])
        rows, bins, frames = made.shape
        if rows == 1 and frames % self._chunk_frames == 0:
            made = made.reshape(bins, -1, self._chunk_frames).transpose(1, 0, 2)
        return np.ascontiguousarray(made)

    def raw_features(self, clips: AnyArray) -> FloatArray:
        """Makes features of samples at the program's own rate.

        Args:
            clips: (batch, channels, num_samples), what `make_raw_audio_input` takes.

        Raises:
            InputError: See `__call__`.
        """
        waveforms = (waveform_of(clip.T, self._sampling_rate, is_samples_first=True) for clip in clips)
        return np.concatenate([self.features(waveform) for waveform in waveforms])
