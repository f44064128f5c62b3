"""Features by ExecuTorch's own mel spectrogram program, compared with ours; and models that get them."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import (
    ContractError,
    ExecutorchMMError,
    ForkError,
    InputError,
    ModelLoadError,
    MultimodalInput,
    MultimodalModel,
    MultimodalRunner,
    Session,
    make_audio_input,
    make_raw_audio_input,
    make_token_input,
)
from executorch_mm._loading.pretrained import find_model
from executorch_mm.preprocess import AudioProcessor, LogMelConfig, MelProgram, Processor, Waveform
from number_tokenizer import NumberTokenizer

MODELS = Path(__file__).resolve().parents[2] / "models"
MEL = MODELS / "mel"
VOXTRAL = MODELS / "multimodal" / "voxtral.pte"
ROWS = 5  # of the decoder for 30 s, which are 40 frames of 16 bins here
SMALL = LogMelConfig(bins=16, hop=12000)
RATE = 16000


def audio(seconds: float, rate: int = RATE) -> Waveform:
    """A tone that rises, and noise."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(time))
    return Waveform(
        (0.3 * np.sin(2 * np.pi * (200 + 20 * time) * time) + 0.05 * noise).astype(np.float32), rate
    )


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        *[("mel_80", seconds) for seconds in (0.01, 29.99, 30, 31, 65)],
        *[
            (name, seconds)
            for name in ("mel_80_stacked", "mel_128", "mel_128_stacked")
            for seconds in (1, 31)
        ],
    ],
)
def test_the_program_gives_what_we_compute(name: str, seconds: float) -> None:
    bins = 128 if "128" in name else 80
    made = MelProgram(MEL / f"{name}.pte")(audio(seconds))
    expected = AudioProcessor(LogMelConfig(bins=bins))(audio(seconds))
    assert made.shape == expected.shape == (int(np.ceil(seconds / 30)), bins, 3000)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    np.testing.assert_allclose(made, expected, atol=1e-4)


def test_audio_of_every_kind_is_made_mono_and_resampled_first() -> None:
    pytest.importorskip("soxr")
    program = MelProgram(MEL / "mel_80.pte")
    high = audio(2, 44100)
    stereo = np.stack([high.samples * 0.5, high.samples * 1.5])
    np.testing.assert_allclose(program(stereo, 44100), program(high.resampled(RATE)), atol=1e-4)
    with pytest.raises(InputError, match="sampling_rate"):
        program(stereo)


def test_an_audio_clip_longer_than_the_program_takes_is_refused_with_both_lengths() -> None:
    program = MelProgram(MEL / "mel_80.pte")
    assert program.max_samples == 65 * RATE
    with pytest.raises(InputError, match=r"at most 1040000 samples \(65 s\).* got 1056000 \(66 s\)"):
        program(audio(66))
    assert program(audio(1)).shape == (1, 80, 3000)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (MODELS / "clip" / "clip.pte", r"expected a method forward, got \['encode_image', 'encode_text'"),
        (MODELS / "text" / "start.pte", "forward: expected one input, floats of rank 1"),
    ],
)
def test_another_program_is_a_contract_error(path: Path, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        MelProgram(path)


def test_a_processor_takes_the_program_that_is_named_or_found(tmp_path: Path) -> None:
    clip = audio(31)
    named = Processor.from_pretrained(tmp_path, audio_preprocessor=MEL / "mel_128.pte")
    assert named.audio_features(clip).shape == (2, 128, 3000)
    shutil.copy(MEL / "mel_80.pte", tmp_path / "whisper_preprocess.pte")
    assert Processor.from_pretrained(tmp_path).audio_features(clip).shape == (2, 80, 3000)
    shutil.copy(MEL / "mel_128.pte", tmp_path / "preprocessor_2.pte")
    with pytest.raises(ModelLoadError, match=r"got preprocessor_2\.pte, whisper_preprocess\.pte; choose"):
        Processor.from_pretrained(tmp_path)


# Models.


def load(**options: object) -> MultimodalRunner:
    return MultimodalRunner(VOXTRAL, NumberTokenizer(), **options)  # type: ignore[arg-type]


def ask(runner: MultimodalRunner | Session, *parts: MultimodalInput) -> str:
    runner.reset()
    return runner.generate_text([make_token_input([5, 9]), *parts, make_token_input([33])], max_new_tokens=8)


@pytest.mark.parametrize("name", ["mel_small", "mel_small_stacked"])
@pytest.mark.parametrize(("seconds", "chunks"), [(2, 1), (30, 1), (31, 2)])
def test_a_clip_takes_the_rows_of_its_chunks_and_is_heard(name: str, seconds: float, chunks: int) -> None:
    with load(audio_preprocessor=MEL / f"{name}.pte") as runner:
        answer = ask(runner, make_audio_input(audio(seconds)))
        assert runner.history.count(-1) == chunks * ROWS
        features = AudioProcessor(SMALL)(audio(seconds))
        assert features.shape == (chunks, 16, 40)
        assert ask(runner, make_audio_input(features)) == answer
        assert ask(runner, make_audio_input(features[:, ::-1].copy())) != answer


def test_raw_audio_passes_through_the_program() -> None:
    samples = audio(2).samples
    with load(audio_preprocessor=MEL / "mel_small.pte") as runner:
        answer = ask(runner, make_audio_input(audio(2)))
        assert ask(runner, make_raw_audio_input(np.stack([samples, samples])[None])) == answer
        assert ask(runner, make_raw_audio_input(samples[None, None])) == answer
        assert runner.history.count(-1) == ROWS
        runner.reset()
        assert runner.prefill(make_raw_audio_input(np.stack([samples, samples])[:, None])) == 2 * ROWS
        with pytest.raises(InputError, match="NaN"):
            runner.prefill(make_raw_audio_input(np.full((1, 1, 400), np.nan, np.float32)))
        assert runner.position == 2 * ROWS


def test_sessions_that_hear_at_the_same_time_each_get_their_own_answer() -> None:
    clips = [audio(seconds) for seconds in (2, 31)]
    with MultimodalModel(
        VOXTRAL, NumberTokenizer(), audio_preprocessor=MEL / "mel_small.pte", num_threads=1
    ) as model:

        def hear(number: int) -> list[str]:
            with model.session() as session:
                return [ask(session, make_audio_input(clips[number % 2])) for _ in range(4)]

        alone = [hear(number)[0] for number in range(2)]
        with ThreadPoolExecutor(6) as threads:
            for number, answers in enumerate(threads.map(hear, range(6))):
                assert answers == [alone[number % 2]] * 4


def test_features_of_another_number_of_bins_are_refused_when_the_model_is_loaded() -> None:
    with pytest.raises(ContractError, match="expected features of 16 bins for the audio_encoder, got 80"):
        load(audio_preprocessor=MEL / "mel_80.pte")
    with pytest.raises(InputError, match="no audio_encoder"):
        MultimodalRunner(
            MODELS / "multimodal" / "llava_clip.pte",
            NumberTokenizer(),
            audio_preprocessor=MEL / "mel_80.pte",
        )


def test_a_model_folder_has_the_program_beside_the_model(tmp_path: Path) -> None:
    shutil.copy(VOXTRAL, tmp_path / "model.pte")
    shutil.copy(MEL / "mel_small_stacked.pte", tmp_path / "voxtral_preprocessor.pte")
    assert find_model(tmp_path).model.name == "model.pte"
    clip = make_audio_input(audio(31))
    with MultimodalRunner(tmp_path / "model.pte", NumberTokenizer()) as runner:
        assert runner.prefill(clip) == 2 * ROWS
    shutil.copy(MEL / "mel_128.pte", tmp_path / "mel.pte")
    with pytest.raises(ModelLoadError, match=r"got mel\.pte, model\.pte"):
        find_model(tmp_path)
    files = find_model(tmp_path, audio_preprocessor="mel.pte")
    assert (files.model.name, files.audio_preprocessor) == ("model.pte", tmp_path / "mel.pte")
    with pytest.raises(ModelLoadError, match=r"expected no\.pte, got mel\.pte, model\.pte"):
        find_model(tmp_path, audio_preprocessor="no.pte")
    shutil.copy(MEL / "mel_128.pte", tmp_path / "preprocess.pte")
    with MultimodalRunner(tmp_path / "model.pte", NumberTokenizer()) as runner:
        with pytest.raises(ModelLoadError, match=r"preprocess\.pte, voxtral_preprocessor\.pte; choose"):
            runner.prefill(clip)
        assert runner.position == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["__call__", "features", "raw_features"])
def test_a_program_is_refused_in_a_forked_child(method: str) -> None:
    program = MelProgram(MEL / "mel_small.pte")
    given = np.zeros((1, 1, 400), np.float32) if method == "raw_features" else audio(1)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            try:
                getattr(program, method)(given)
            except ForkError as error:
                program.close()
                status = 0 if "the program was loaded in process" in str(error) else 2
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert getattr(program, method)(given).shape[1] == program.bins


def test_a_closed_program_says_so_and_closing_twice_is_fine() -> None:
    with MelProgram(MEL / "mel_small.pte") as program:
        assert program(audio(1)).shape == (1, 16, 40)
    program.close()
    for call in (program, program.features):
        with pytest.raises(ExecutorchMMError, match="the program is closed"):
            call(audio(1))
    assert "mel_small.pte" in repr(program)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_program_is_not_copied(copied: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="a MelProgram cannot be pickled or copied"):
        copied(MelProgram(MEL / "mel_small.pte"))
