"""What models, open, closed or busy, show of themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import executorch_mm
from executorch_mm import ClipModel, MultimodalRunner, SpeechRunner
from executorch_mm.demo import SPOKEN_FILE

MODELS = Path(__file__).parents[2] / "models"


def test_a_runner_tells_file_size_modalities_context_and_threads() -> None:
    with MultimodalRunner.demo(num_threads=1) as runner:
        runner.prefill(executorch_mm.make_token_input([1, 2, 3]))
        size = (Path(executorch_mm.__file__).parent / "models" / "tiny_vlm" / "model.pte").stat().st_size
        expected = f"model.pte ({size / 1e6:.1f} MB), text+images+audio, context 3 of 256, 1 thread"
        assert repr(runner) == f"<MultimodalRunner: {expected}>"
        stream = runner.stream("<|user|>how many shapes are there?<|end|><|assistant|>")
        next(stream)
        assert "context" in repr(runner)  # while it is busy, too
        stream.close()
    assert repr(runner) == f"<MultimodalRunner: model.pte ({size / 1e6:.1f} MB), the runner is closed>"


def test_a_model_in_memory_has_no_name(demo_folder: Path) -> None:
    content = (demo_folder / "model.pte").read_bytes()
    with MultimodalRunner(content, demo_folder, num_threads=1) as runner:
        assert f"{len(content) / 1e6:.1f} MB in memory, text+images+audio" in repr(runner)


def test_a_speech_runner_and_a_clip_model_tell_what_they_are() -> None:
    with SpeechRunner(MODELS / "speech" / "kv.pte", num_threads=1) as speech:
        assert "Whisper, audio, 1 thread>" in repr(speech)
        heard = speech.transcribe(SPOKEN_FILE, temperature=0.0, language="en", max_new_tokens=4)
    assert str(heard) == heard.text
    segments = f"{len(heard.segments)} segment{'s' * (len(heard.segments) != 1)}"
    assert repr(heard).startswith(f"<Transcription: {heard.text!r}, {segments}, {heard.duration:.1f} s, en, ")
    shown = dataclasses.replace(heard, text="a <b> & c")._repr_html_()
    assert "a &lt;b&gt; &amp; c" in shown
    assert f"<td>{heard.duration:.1f} s</td>" in shown
    assert "closed" in repr(speech)
    path = next((MODELS / "clip").rglob("*.pte"))
    with ClipModel(path) as clip:
        assert repr(clip).startswith(f"<ClipModel: {path.name} (")
        assert "images" in repr(clip) or "text" in repr(clip)
    assert "closed" in repr(clip)
