"""What lies beside a model is looked up in one way, by runners and by `Processor`: part by part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    ClipModel,
    InputError,
    MultimodalRunner,
    make_audio_input,
    make_image_input,
)
from executorch_mm.demo import SPOKEN_FILE, SPOKEN_WORDS, make_scene, render
from executorch_mm.preprocess import AudioProcessor, ImageProcessor, Processor
from executorch_mm.preprocess.find import FoundProcessors

IMAGE, AUDIO = "preprocessor_config.json", "audio_preprocessor_config.json"
QUESTION = "<|end|><|assistant|>"
CLIP = Path(__file__).resolve().parents[2] / "models" / "clip"


@pytest.fixture(scope="module")
def configs(demo_folder: Path) -> dict[str, dict[str, Any]]:
    return {name: json.loads((demo_folder / name).read_text(encoding="utf-8")) for name in (IMAGE, AUDIO)}


def model_in(folder: Path, demo_folder: Path, **files: dict[str, Any]) -> Path:
    """The model alone, and these JSON files by name without .json."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(demo_folder / "model.pte", folder)
    return with_files(folder, **files)


def with_files(folder: Path, **files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def hear(runner: MultimodalRunner) -> str:
    runner.reset()
    prompt = ["<|user|>", make_audio_input(SPOKEN_FILE), f"What do you hear?{QUESTION}"]
    return runner.generate_text(prompt, max_new_tokens=20)


def look(runner: MultimodalRunner) -> list[int]:
    runner.reset()
    prompt = ["<|user|>", make_image_input(render(make_scene(7))), f"Describe this picture.{QUESTION}"]
    return runner.generate_result(prompt, max_new_tokens=20).token_ids


def test_audio_clips_are_heard_where_only_the_file_for_audio_is(
    demo_folder: Path, tmp_path: Path, configs: dict[str, dict[str, Any]]
) -> None:
    folder = model_in(tmp_path, demo_folder, audio_preprocessor_config=configs[AUDIO])
    AudioProcessor.from_pretrained(folder)
    with MultimodalRunner(folder / "model.pte", demo_folder / "tokenizer.json") as runner:
        assert hear(runner) == SPOKEN_WORDS
    shutil.copy(demo_folder / "tokenizer.json", folder)
    with MultimodalRunner(folder / "model.pte") as runner:
        assert hear(runner) == SPOKEN_WORDS


def test_an_image_where_the_files_describe_audio_alone_is_told_so(
    demo_folder: Path, tmp_path: Path, configs: dict[str, dict[str, Any]]
) -> None:
    folder = model_in(tmp_path, demo_folder, preprocessor_config=configs[AUDIO])
    shutil.copy(demo_folder / "tokenizer.json", folder)
    processor = Processor.from_pretrained(folder)
    with pytest.raises(InputError, match="the model's files describe no image processor"):
        processor.images([render(make_scene(7))])
    with MultimodalRunner(folder / "model.pte") as runner:
        with pytest.raises(InputError, match="the model's files describe no image processor"):
            look(runner)
        assert runner.position == 0
        assert hear(runner) == SPOKEN_WORDS
        prepared = ImageProcessor.from_pretrained(demo_folder)(render(make_scene(7)))
        assert runner.prefill(make_image_input(prepared)) > 0


@pytest.mark.parametrize("image_is_beside_the_model", [True, False])
def test_each_part_is_taken_from_the_folder_that_has_it(
    demo_folder: Path, tmp_path: Path, configs: dict[str, dict[str, Any]], image_is_beside_the_model: bool
) -> None:
    here, there = {"preprocessor_config": configs[IMAGE]}, {"audio_preprocessor_config": configs[AUDIO]}
    if not image_is_beside_the_model:
        here, there = there, here
    model = model_in(tmp_path / "model", demo_folder, **here)
    tokenizer = with_files(tmp_path / "tokenizer", **there)
    shutil.copy(demo_folder / "tokenizer.json", tokenizer)
    with MultimodalRunner.demo() as runner:
        expected = look(runner)
    with MultimodalRunner(model / "model.pte", tokenizer) as runner:
        assert hear(runner) == SPOKEN_WORDS
        assert look(runner) == expected


def test_both_parts_under_one_name_come_from_their_own_folders(
    tmp_path: Path, configs: dict[str, dict[str, Any]]
) -> None:
    first = with_files(tmp_path / "a", preprocessor_config=configs[AUDIO])
    second = with_files(tmp_path / "b", preprocessor_config=configs[IMAGE])
    for folders in ([first, second], [second, first]):
        found = FoundProcessors(folders)
        assert found.image is not None
        assert found.feature_extractor is not None
        assert found.feature_extractor.config.bins == 64
        assert not found.has_other_than_image


def test_the_first_folder_that_has_a_part_counts(tmp_path: Path, configs: dict[str, dict[str, Any]]) -> None:
    small = configs[AUDIO] | {"feature_size": 16}
    first = with_files(tmp_path / "a", audio_preprocessor_config=small)
    second = with_files(tmp_path / "b", audio_preprocessor_config=configs[AUDIO])
    found = FoundProcessors([first, second]).feature_extractor
    assert found is not None
    assert found.config.bins == 16


def test_a_damaged_part_is_an_error_of_that_part_alone(
    tmp_path: Path, configs: dict[str, dict[str, Any]]
) -> None:
    unknown = configs[AUDIO] | {"feature_extractor_type": "WaveletExtractor"}
    folder = with_files(tmp_path, preprocessor_config=configs[IMAGE], audio_preprocessor_config=unknown)
    found = FoundProcessors([folder])
    assert found.image is not None
    assert found.image(np.zeros((9, 9, 3), np.uint8)).shape == (3, 64, 64)
    with pytest.raises(InputError, match="WaveletExtractor is not supported"):
        _ = found.feature_extractor


def test_a_path_that_is_given_and_has_nothing_is_an_error(
    demo_folder: Path, tmp_path: Path, configs: dict[str, dict[str, Any]]
) -> None:
    empty = with_files(tmp_path / "empty")
    found = FoundProcessors([demo_folder], empty)
    for part in ("image", "feature_extractor"):
        with pytest.raises(InputError, match=r"expected preprocessor_config\.json .*empty"):
            getattr(found, part)
    with pytest.raises(InputError, match="No such file"):
        _ = FoundProcessors([demo_folder], tmp_path / "absent.json").image
    audio = with_files(tmp_path / "audio", audio_preprocessor_config=configs[AUDIO])
    assert FoundProcessors([demo_folder], audio).image is None


def test_a_clip_model_says_what_it_looked_for_and_takes_what_is_named(tmp_path: Path) -> None:
    file = json.loads((CLIP / "manifest.json").read_text())["models"][0]["file"]
    shutil.copy(CLIP / file, tmp_path)
    image = np.zeros((40, 30, 3), np.uint8)
    with (
        ClipModel(tmp_path / file) as model,
        pytest.raises(InputError, match="image processor: expected prepro"),
    ):
        model.encode_image(image)
    with ClipModel(tmp_path / file, processor_path=CLIP) as model, ClipModel(CLIP / file) as beside:
        np.testing.assert_array_equal(model.encode_image(image), beside.encode_image(image))
