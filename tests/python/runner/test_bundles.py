"""Bundles: one file that is what a folder is, and hostile ones, which are refused before they are used."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import (
    ClipModel,
    EmbeddingModel,
    ExecutorchMMError,
    ModelLoadError,
    MultimodalModel,
    MultimodalRunner,
    SpeechRunner,
    cli,
    inspect_model,
)
from executorch_mm.demo import make_scene, render
from number_tokenizer import NumberTokenizer

MODELS = Path(__file__).resolve().parents[2] / "models"
SCENE = render(make_scene(seed=950_000_001))
MESSAGES = [{"role": "user", "content": [SCENE, "how many shapes are there?"]}]


def pack(model: Path, target: Path, *options: str) -> Path:
    assert cli.main(["pack", str(model), "--output", str(target), *options]) == 0
    return target


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, demo_folder: Path) -> Path:
    return pack(demo_folder, tmp_path_factory.mktemp("bundles") / "tiny.bundle")


# A bundle is what its folder is.


@pytest.mark.parametrize("options", [{}, {"load_mode": "file"}, {"isolate": True}])
def test_a_bundle_answers_as_its_folder_does(
    options: dict[str, object], bundle: Path, demo_folder: Path
) -> None:
    if "isolate" in options and not hasattr(os, "memfd_create"):
        pytest.skip("isolated models need memory that this system does not have")
    with MultimodalRunner(demo_folder / "model.pte") as runner:
        expected = runner.chat(MESSAGES, logprobs=2)
    with MultimodalRunner(bundle, **options) as runner:  # type: ignore[arg-type]
        assert runner.chat(MESSAGES, logprobs=2).to_dict()["logprobs"] == expected.to_dict()["logprobs"]
        assert "model.pte (4.2 MB)" in repr(runner)
    if not options:
        with MultimodalRunner.from_pretrained(bundle) as runner:
            assert runner.chat(MESSAGES).text == expected.text


def test_what_a_draft_costs_is_told_by_the_sizes_in_a_bundle(tmp_path: Path, demo_folder: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(MODELS / "export_llm" / "llama_full_logits.pte", folder / "model.pte")
    shutil.copy(demo_folder / "tokenizer.json", folder)
    model = pack(folder, tmp_path / "full_logits.bundle")
    draft = MODELS / "export_llm" / "llama_full_logits.pte"
    with MultimodalRunner(model, NumberTokenizer(), draft_model=draft) as runner:
        assert runner._loaded.drafting is not None
        assert runner._loaded.drafting.cost == 1.0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not say what is mapped")
def test_weights_are_mapped_where_they_lie(bundle: Path) -> None:
    with MultimodalRunner(bundle):
        mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(bundle) in line]
    assert mapped
    assert str(bundle) not in Path("/proc/self/maps").read_text()


def test_a_conversation_goes_from_a_folder_to_its_bundle_and_back(
    bundle: Path, demo_folder: Path, tmp_path: Path
) -> None:
    for first, second in ((demo_folder / "model.pte", bundle), (bundle, demo_folder / "model.pte")):
        with MultimodalRunner(first) as runner:
            runner.chat(MESSAGES)
            runner.save(tmp_path / "chat.emm")
        with MultimodalRunner(second) as runner:
            runner.restore(tmp_path / "chat.emm")
            assert runner.position > 0


def test_weights_of_their_own_are_found_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("model.pte", "all.ptd"):
        (folder / name).symlink_to(MODELS / "external_weights" / name)
    prompt = [1, 2, 3]
    from executorch_mm import make_token_input

    answers = []
    for model, data in (
        (folder / "model.pte", folder / "all.ptd"),
        (pack(folder, tmp_path / "a.bundle"), ()),
    ):
        with MultimodalRunner(model, NumberTokenizer(), data_path=data) as runner:
            result = runner.generate_result([make_token_input(prompt)], max_new_tokens=8, logprobs=0)
            answers.append((result.token_ids, result.logprobs))
    assert answers[0] == answers[1]

    (folder / "blocks.ptd").symlink_to(MODELS / "external_weights" / "blocks.ptd")
    assert cli.main(["pack", str(folder), "--output", str(tmp_path / "b.bundle")]) == 1


def test_every_kind_of_model_is_taken(tmp_path: Path) -> None:
    text = "a cat"
    clip = pack(MODELS / "clip", tmp_path / "clip.bundle", "--model-file", "clip.pte")
    with ClipModel(clip) as model, ClipModel(MODELS / "clip" / "clip.pte") as other:
        assert np.array_equal(model.encode_text(text), other.encode_text(text))

    embeddings = pack(MODELS / "embeddings" / "bert_mean", tmp_path / "bert.bundle")
    for model in (EmbeddingModel(embeddings), EmbeddingModel.from_pretrained(embeddings)):
        with model, EmbeddingModel(MODELS / "embeddings" / "bert_mean") as other:
            assert np.array_equal(model.encode(text), other.encode(text))

    speech = pack(MODELS / "speech", tmp_path / "speech.bundle", "--model-file", "kv.pte")
    samples = np.sin(np.arange(16_000) * 0.05).astype(np.float32)
    with SpeechRunner(speech) as heard, SpeechRunner(MODELS / "speech" / "kv.pte") as other:
        assert (
            heard.transcribe(samples, sampling_rate=16_000).text
            == other.transcribe(samples, sampling_rate=16_000).text
        )


def test_an_export_folder_may_be_in_a_bundle(tmp_path: Path) -> None:
    folder = MODELS / "export_folders" / "gpt2"
    bundle = pack(folder, tmp_path / "gpt2.bundle")
    from executorch_mm import make_token_input

    answers = []
    for model in (folder, bundle):
        with MultimodalRunner(model, NumberTokenizer()) as runner:
            result = runner.generate_result([make_token_input([1, 2, 3])], max_new_tokens=5)
            answers.append(result.token_ids)
    assert answers[0] == answers[1]


def test_the_command_line_takes_bundles(
    bundle: Path, demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for model in (str(bundle), str(demo_folder)):
        assert cli.main(["inspect", "--json", model]) == 0
        report = json.loads(capsys.readouterr().out)
        del report["path"]
        reports.append(report)
    assert reports[0] == reports[1]
    assert inspect_model(bundle).file_bytes == reports[0]["file_bytes"]

    from executorch_mm._loading.pretrained import find_model
    from executorch_mm.cli.serve import _name, _of_files

    with _of_files(find_model(bundle), 1) as served:  # type: ignore[union-attr]
        assert isinstance(served, MultimodalModel)
    assert _name(str(bundle)) == "tiny"


def test_the_same_files_make_the_same_bundle_and_a_bundle_can_be_packed_again(
    bundle: Path, demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = pack(bundle, tmp_path / "again.bundle")
    assert again.read_bytes() == bundle.read_bytes()
    with zipfile.ZipFile(bundle) as file:
        assert file.testzip() is None
        assert file.read("model.pte") == (demo_folder / "model.pte").read_bytes()
    capsys.readouterr()
    assert cli.main(["pack", str(bundle), "--output", str(again)]) == 2
    assert "--force" in capsys.readouterr().err


def test_a_bundle_that_is_replaced_is_opened_anew(bundle: Path, tmp_path: Path) -> None:
    from executorch_mm._loading.bundle import unpack

    path = tmp_path / "a.bundle"
    path.write_bytes(bundle.read_bytes())
    first = unpack(path)
    assert unpack(path) == first
    path.unlink()
    path.write_bytes(bundle.read_bytes())
    os.utime(path, (1, 1))
    assert unpack(path) != first
    with pytest.raises(ModelLoadError, match="has changed"):
        MultimodalRunner(first / "model.pte")


def test_the_folder_of_a_process_ends_with_it(bundle: Path, tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from executorch_mm._loading.bundle import unpack\n"
        "print(unpack(Path(sys.argv[1])), flush=True)\n"
        "if os.fork() == 0: sys.exit()\n"
        "os.wait(); assert (unpack(Path(sys.argv[1])) / 'model.pte').exists()"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(bundle)],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_who_opens_no_bundle_imports_nothing_for_it() -> None:
    program = (
        "import sys; before = {*sys.modules}; from executorch_mm import MultimodalRunner\n"
        "print(*{'tempfile', 'zipfile', 'lzma'} & {*sys.modules} - before)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


# Bundles of strangers.

MANIFEST = "executorch_mm_bundle.json"


def zipped(*files: tuple[str, bytes], compression: int = zipfile.ZIP_STORED, mode: int = 0o100644) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as file:
        file.writestr(zipfile.ZipInfo(MANIFEST), "{}")
        for name, data in files:
            info = zipfile.ZipInfo()
            info.filename = name  # as it is
            info.external_attr = mode << 16
            info.compress_type = compression
            file.writestr(info, data)
    return target.getvalue()


def patched(data: bytes, old: bytes, new: bytes, count: int = 1) -> bytes:
    assert old in data
    return data.replace(old, new, count)


def central(data: bytes, name: bytes, field: int, value: int) -> bytes:
    """With another number of 32 bits in the directory's entry of a file."""
    at = data.rindex(name, 0, data.rindex(b"PK\x05\x06")) - 46 + field
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


def both_sizes(data: bytes, name: bytes, value: int) -> bytes:
    return central(central(data, name, 20, value), name, 24, value)


INSIDE = zipped(("b.json", b"{}"))[: 30 + 6 + 2 + 100]
HOSTILE = {
    "a path that leads up": (zipped(("../x.json", b"")), "got '../x.json'"),
    "a path that leads up from inside": (zipped(("a/../../x.json", b"")), "name of a file"),
    "an absolute path": (zipped(("/tmp/x.json", b"")), "name of a file"),
    "a drive": (zipped(("C:x.json", b"")), "name of a file"),
    "a backslash": (zipped(("a\\x.json", b"")), "name of a file"),
    "a folder": (zipped(("a/", b"")), "name of a file"),
    "a point": (zipped(("./x.json", b"")), "name of a file"),
    "two slashes": (zipped(("a//x.json", b"")), "name of a file"),
    "a line end": (zipped(("a\nx.json", b"")), "name of a file"),
    "a null": (patched(zipped(("aQb.json", b"")), b"aQb", b"a\0b", 2), "name of a file"),
    "a long name": (zipped(("a" * 256, b"")), "name of a file"),
    "a link": (zipped(("x.json", b"/etc/passwd"), mode=0o120777), "got a link"),
    "letters of another size": (zipped(("x.json", b"1"), ("X.json", b"2")), "there twice"),
    "a file that is a folder": (zipped(("a", b"1"), ("a/b", b"2")), "there twice"),
    "compression": (zipped(("x.json", b"1" * 999), compression=zipfile.ZIP_DEFLATED), "compressed"),
    "encryption": (central(zipped(("x.json", b"1")), b"x.json", 6, 1 << 16 | 20), "encrypted"),
    "no alignment": (zipped(("model.pte", b"1" * 999)), "multiple of 16384"),
    "an empty program": (zipped(("model.pte", b"")), "multiple of 16384"),
    "a file inside of another": (
        central(zipped(("a.json", INSIDE), ("b.json", b"{}")), b"b.json", 42, 120),
        "overlaps another",
    ),
    "another file in its place": (
        patched(zipped(("a.json", b"1")), b"a.json", b"b.json"),
        "another file lies in its place",
    ),
    "more than there is": (both_sizes(zipped(("x.json", b"1")), b"x.json", 1 << 20), "size is wrong"),
    "a size that is told twice": (both_sizes(zipped(("x.json", b"123")), b"x.json", 2), "size is wrong"),
    "another checksum": (patched(zipped(("x.json", b"abc")), b"abc", b"abd"), "CRC"),
    "half a directory": (zipped(("x.json", b"1"))[:-40], "zip"),
    "many files": (zipped(*((f"{i}.json", b"") for i in range(4096))), "at most 4096 files"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_bundle_is_refused_before_anything_of_it_is_used(what: str, tmp_path: Path) -> None:
    from executorch_mm._loading import bundle

    content, message = HOSTILE[what]
    path = tmp_path / "hostile.bundle"
    path.write_bytes(content)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ModelLoadError) as caught:
        MultimodalRunner(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert set(tmp_path.rglob("*")) == before
    assert path.resolve() not in bundle._folders


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.bundle"
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(zipped(("x.json", b"1"), ("x.json", b"2")))
    with pytest.raises(ModelLoadError, match="there twice"):
        MultimodalRunner.from_pretrained(path)


def test_bytes_changed_at_random_are_refused_or_do_not_matter(tmp_path: Path) -> None:
    """Those that say what is where; the programs in it are changed in other tests."""
    from executorch_mm._loading.bundle import unpack

    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("model.pte", "tokenizer.json", "config.json"):
        (folder / name).write_text(name)
    good = pack(folder, tmp_path / "small.bundle").read_bytes()
    directory = good.index(b"PK\x01\x02")
    places = [*range(200), *range(directory, directory + 400), *range(len(good) - 100, len(good))]
    rng = random.Random(19)
    num_refused = 0
    path = tmp_path / "changed.bundle"
    for _ in range(80):
        data = bytearray(good)
        for place in rng.sample(places, rng.choice([1, 1, 2, 8])):
            data[place] = rng.choice([0, 0xFF, data[place] ^ 1 << rng.randrange(8)])
        path.write_bytes(data)
        try:
            folder = unpack(path)
        except ModelLoadError:
            num_refused += 1
        else:
            assert all(file.resolve().is_relative_to(folder) for file in folder.rglob("*"))
    assert 40 < num_refused < 80


def test_a_zip_that_is_no_bundle_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", "y")
    with pytest.raises(ExecutorchMMError, match=r"some\.zip"):
        MultimodalRunner(path)


def test_no_room_for_the_small_files_is_an_error_of_loading(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from executorch_mm._loading import bundle as bundles

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    copy = tmp_path / "a.bundle"
    copy.write_bytes(bundle.read_bytes())
    monkeypatch.setattr(bundles, "write_part", full)
    with pytest.raises(ModelLoadError, match="No space left"):
        MultimodalRunner(copy)
