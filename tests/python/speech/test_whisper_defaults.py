"""What Whisper may not say where no file forbids it, and languages by name: as in OpenAI's code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import InputError, SpeechRunner, load_tokenizer
from executorch_mm.speech._languages import CODES, language_code
from executorch_mm.speech._whisper_defaults import not_first_tokens, unspoken_tokens
from speech_cases import FOLDER, RATE, clip

DATA = Path(__file__).resolve().parents[2] / "data" / "speech"

# transformers 5.24, models/whisper/configuration_whisper.py: NON_SPEECH_TOKENS_MULTI and NON_SPEECH_TOKENS
# without their last four, which are control tokens.
UNSPOKEN = {
    "multilingual": """1 2 7 8 9 10 14 25 26 27 28 29 31 58 59 60 61 62 63 90 91 92 93 359 503 522 542 873 893
    902 918 922 931 1350 1853 1982 2460 2627 3246 3253 3268 3536 3846 3961 4183 4667 6585
    6647 7273 9061 9383 10428 10929 11938 12033 12331 12562 13793 14157 14635 15265 15618
    16553 16604 18362 18956 20075 21675 22520 26130 26161 26435 28279 29464 31650 32302
    32470 36865 42863 47425 49870 50254""",
    "english": """1 2 7 8 9 10 14 25 26 27 28 29 31 58 59 60 61 62 63 90 91 92 93 357 366 438 532 685 705
    796 930 1058 1220 1267 1279 1303 1343 1377 1391 1635 1782 1875 2162 2361 2488 3467 4008
    4211 4600 4808 5299 5855 6329 7203 9609 9959 10563 10786 11420 11709 11907 13163 13697
    13700 14808 15306 16410 16791 17992 19203 19510 20724 22305 22935 27007 30109 30420
    33409 34949 40283 40493 40549 47282 49146""",
}
FIRST_TIME = 268


def folder_without(tmp_path: Path, *left_out: str, **changed: dict[str, Any]) -> Path:
    """The folder of the tiny model without some files, and with others."""
    for path in FOLDER.iterdir():
        if path.suffix == ".json" and path.name not in left_out and path.name != "manifest.json":
            shutil.copy(path, tmp_path / path.name)
    shutil.copy(FOLDER / "kv.pte", tmp_path)
    for name, content in changed.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def tokens_of(folder: Path) -> Any:
    with SpeechRunner(folder / "kv.pte", num_threads=1) as runner:
        return runner._requests.model._tokens


@pytest.mark.parametrize("name", UNSPOKEN)
def test_signs_that_are_not_spoken_are_those_of_transformers_for_both_vocabularies(name: str) -> None:
    tokenizer = load_tokenizer(DATA / f"signs_{name}.json")
    expected = [*map(int, UNSPOKEN[name].split())]
    assert [*unspoken_tokens(tokenizer, ())] == expected
    assert [*unspoken_tokens(tokenizer, (None, 50258, 50362, None))] == sorted({*expected, 50258, 50362})


@pytest.mark.parametrize("name", UNSPOKEN)
def test_no_text_begins_with_a_space_alone_or_ends_at_once(name: str) -> None:
    # 220 and the end: begin_suppress_tokens of both kinds in WhisperConfig.
    assert not_first_tokens(load_tokenizer(DATA / f"signs_{name}.json"), (50257,)) == (220, 50257)


def test_a_vocabulary_of_bytes_keeps_its_space_and_the_first_bytes_of_letters() -> None:
    tokenizer = load_tokenizer(FOLDER / "tokenizer.json")
    unspoken = {*unspoken_tokens(tokenizer, ())}
    for text in (" ", "é", "„", "a", "-", "'", ",", "."):
        assert not unspoken & {*tokenizer.encode(text)}, text
    for text in '"#()*':
        assert unspoken >= {*tokenizer.encode(text)}, text


def test_without_a_generation_config_the_references_lists_and_limit_hold(tmp_path: Path) -> None:
    tokens = tokens_of(folder_without(tmp_path, "generation_config.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert tokens.max_initial == 50  # DecodingOptions.max_initial_timestamp = 1.0 in steps of 0.02 s
    # _get_suppress_tokens: signs, tasks, start, previous, start of LM, no speech
    control = ("transcribe", "translate", "startoftranscript", "startofprev", "startoflm", "nospeech")
    named = [tokenizer.token_to_id(f"<|{name}|>") for name in control]
    assert {token for token in named if token is not None} <= {*tokens.suppress}
    assert {*unspoken_tokens(tokenizer, ())} <= {*tokens.suppress}
    assert {*tokens.begin_suppress} == {*tokenizer.encode(" "), *tokens.ends}


def test_a_generation_config_is_followed_as_it_is(tmp_path: Path) -> None:
    given = json.loads((FOLDER / "generation_config.json").read_text())
    for key in ("suppress_tokens", "begin_suppress_tokens", "max_initial_timestamp_index"):
        given.pop(key)
    bare = tokens_of(folder_without(tmp_path, generation_config=given))
    assert (bare.suppress, bare.begin_suppress, bare.max_initial) == ((), (), -1)
    whole = tokens_of(FOLDER)
    assert (whole.suppress, whole.begin_suppress, whole.max_initial) == (
        (33, 34, 35, 264, 265, 266),
        (220, 256),
        50,
    )


def test_lists_of_an_old_config_go_before_the_references(tmp_path: Path) -> None:
    config = {"suppress_tokens": [7, 9], "begin_suppress_tokens": [220, 256]}
    tokens = tokens_of(folder_without(tmp_path, "generation_config.json", config=config))
    assert (tokens.suppress, tokens.begin_suppress, tokens.max_initial) == ((7, 9), (220, 256), 50)


def test_what_is_forbidden_does_not_come_and_the_first_time_is_within_a_second(tmp_path: Path) -> None:
    folder = folder_without(tmp_path, "generation_config.json")
    with SpeechRunner(folder / "kv.pte", num_threads=1) as runner:
        tokens = runner._requests.model._tokens
        for name in ("short", "other"):
            for seed in range(4):
                result = runner.transcribe(
                    clip(name), sampling_rate=RATE, timestamps=True, temperature=1.0, seed=seed,
                    max_new_tokens=30, no_speech_threshold=None,
                )  # fmt: skip
                assert result.segments
                chosen = [token for segment in result.segments for token in segment.tokens]
                assert not {*chosen} & {*tokens.suppress}
                assert FIRST_TIME <= chosen[0] <= FIRST_TIME + 50
                assert chosen[1] not in tokens.begin_suppress or chosen[1] >= FIRST_TIME


@pytest.mark.parametrize(
    ("given", "code"),
    # transformers 5.24, models/whisper/tokenization_whisper.py: TO_LANGUAGE_CODE
    [("English", "en"), ("german", "de"), ("CHINESE", "zh"), ("mandarin", "zh"), ("castilian", "es"),
     ("EN", "en"), (" es ", "es"), ("Haitian Creole", None), ("french", None), ("fr", None), ("", None),
     ("de-DE", None)],
)  # fmt: skip
def test_a_language_goes_by_code_or_name(given: str, code: str | None) -> None:
    assert language_code(given, ("en", "zh", "de", "es")) == code


def test_every_language_of_whisper_has_its_names() -> None:
    assert len({*CODES.values()}) == 100
    assert len(CODES) == 112
    others = {"burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb"}
    others |= {"pushto": "ps", "panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si"}
    assert {name: CODES[name] for name in others} == others
    assert (CODES["cantonese"], CODES["haitian creole"], CODES["javanese"]) == ("yue", "ht", "jw")


def test_a_name_says_the_same_as_its_code() -> None:
    samples = np.asarray(clip("short"))
    with SpeechRunner(FOLDER / "kv.pte", num_threads=1) as runner:
        results = [
            runner.transcribe(
                samples, sampling_rate=RATE, language=language, temperature=0.0, max_new_tokens=20
            )
            for language in ("de", "German", "GERMAN")
        ]
        with pytest.raises(InputError, match=r"by code or English name, got 'French'"):
            runner.transcribe(samples, sampling_rate=RATE, language="French")
    assert {result.language for result in results} == {"de"}
    assert len({result.text for result in results}) == 1
