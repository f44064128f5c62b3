"""`executorch-mm transcribe`: audio files in, text or subtitles out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from executorch_mm.cli.audio_files import AudioFile, audio_files, outputs_in, replaced
from executorch_mm.cli.errors import UsageError, complain
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.model_arguments import add_model, add_threads, find_files, num_threads
from executorch_mm.cli.output import add_json, add_output, opened, stdin_parts
from executorch_mm.cli.progress import PromptProgress

if TYPE_CHECKING:
    from io import BufferedReader

    from executorch_mm.speech import (
        Partial,
        Segment,
        SileroVad,
        SpeechConfig,
        SpeechModel,
        SpeechRunner,
        Transcription,
    )

_FORMATS = ("txt", "srt", "vtt", "json", "verbose_json")
_WITH_WORDS = ("srt", "vtt", "json", "verbose_json")


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "transcribe",
        "write down what is said in audio files",
        "Write down what is said in audio files; segments go to stdout as they come.",
        "Several files are written one after another: as txt with a line ==> FILE <== before each, as JSON "
        "one object a line; verbose_json is that of OpenAI's API. Subtitles of several files need a folder "
        "as --output, or --output-dir, which goes on where it was interrupted: what is written there already "
        "is skipped, and each file appears when it is whole. Of a folder all audio files in it are meant, in "
        "its folders too; a pattern such as 'talks/**/*.mp3' may be quoted. Where a file fails, the others "
        "are written all the same.",
    )
    parser.add_argument(
        "audio",
        metavar="FILE",
        nargs="+",
        help="an audio file, a folder of them or a pattern; - reads it from standard input",
    )
    parser.add_argument(
        "--language", metavar="L", help="of what is said: de, German or german (default: the model tells)"
    )
    parser.add_argument(
        "--task", choices=("transcribe", "translate"), default="transcribe", help="translate writes English"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="names, spellings and style to go by")
    parser.add_argument(
        "--temperature", metavar="X", type=float, help="use only this one; 0 takes the likeliest tokens"
    )
    parser.add_argument(
        "--beam-size", metavar="N", type=int, default=1, help="texts that are followed at a time (default: 1)"
    )
    parser.add_argument("--seed", metavar="N", type=int, help="the same seed gives the same text")
    silence = parser.add_mutually_exclusive_group()
    silence.add_argument("--vad", action="store_true", help="leave out what is no louder than its background")
    silence.add_argument(
        "--vad-model", metavar="PATH", help="leave out where this .pte of Silero VAD finds no speech"
    )
    parser.add_argument(
        "--live", action="store_true", help="hear standard input while it comes: a WAV file or PCM of 16 bits"
    )
    parser.add_argument(
        "--rate", metavar="N", type=int, help="samples per second of PCM (default: 16000), with --live"
    )
    parser.add_argument("--channels", metavar="N", type=int, help="of PCM (default: 1), with --live")
    place = parser.add_mutually_exclusive_group()
    add_output(place, "write to this file, or into this folder as NAME.FORMAT for each audio file")
    place.add_argument(
        "--output-dir", metavar="DIR", help="write NAME.FORMAT into this folder, and skip what is there"
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--format", choices=_FORMATS, default="txt", help="of the text (default: txt)")
    add_json(shape, "the same as --format json")
    parser.add_argument(
        "--words", action="store_true", help="times of words: a subtitle each, or in the JSON"
    )
    parser.add_argument("--stats", action="store_true", help="print counts and times to stderr")
    add_threads(add_model(parser))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: Options out of range or at odds with each other.
        ExecutorchMMError: The only file cannot be read, or the model fails.
        OSError: The text cannot be written.
    """
    from executorch_mm import InputError, MissingDependencyError

    _check(arguments)
    config = _config(arguments)
    detector = _detector(arguments)
    if detector is not None:
        config = config.replace(vad_filter=detector)
    if arguments.live:
        return _transcribe_live(arguments, config)
    files = audio_files(arguments.audio)
    if arguments.output_dir is not None:
        return _transcribe_missing(arguments, files, config)
    outputs = _outputs(arguments, files)
    num_failed = 0
    with _runner(arguments) as runner:
        for audio, output in outputs:
            try:
                _transcribe(arguments, runner, audio, output, config, len(files) > 1)
            except (InputError, MissingDependencyError) as error:  # noqa: PERF203 each may fail
                if len(outputs) == 1:
                    raise
                complain(f"{audio}: {error}" if audio not in str(error) else error)
                num_failed += 1
    return int(num_failed > 0)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.json:
        arguments.format = "json"
    if arguments.words and arguments.format not in _WITH_WORDS:
        wanted = ", ".join(_WITH_WORDS)
        raise UsageError(f"transcribe: --words needs --format {wanted}, not {arguments.format}")
    for name, usual in (("rate", 16_000), ("channels", 1)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, usual)
        elif not arguments.live:
            raise UsageError(f"transcribe: --{name} needs --live")


def _transcribe(
    arguments: argparse.Namespace,
    runner: SpeechRunner,
    audio: str,
    output: str,
    config: SpeechConfig,
    has_others: bool,
) -> None:
    progress = PromptProgress(sys.stderr)
    source = stdin_parts() if audio == "-" else audio

    def show(done: float, total: float) -> None:
        progress(round(done), max(round(total), 1), "transcribe")

    is_one_of_several = has_others and output == "-"
    if arguments.format in ("json", "verbose_json"):
        result = runner.transcribe(source, config, progress=show)
        progress.clear()
        found = _json(arguments, result)
        named = {"file": audio, **found} if is_one_of_several else found
        with opened(output) as file:
            file.write(json.dumps(named, ensure_ascii=False) + "\n")
    else:
        from executorch_mm.speech.formats import write

        with closing(runner.stream_transcribe(source, config, progress=show)) as events:
            pieces = write(arguments.format, _segments(events), words=arguments.words)
            first = next(pieces, "")  # the audio is read here, before a file is made
            with opened(output) as file:
                _write(file, f"==> {audio} <==\n{first}" if is_one_of_several else first, progress)
                for piece in pieces:
                    _write(file, piece, progress)
    progress.clear()
    if arguments.stats:
        print(runner.stats, file=sys.stderr)


def _transcribe_live(arguments: argparse.Namespace, config: SpeechConfig) -> int:
    """Standard input while it comes; what may still change is shown on a terminal only."""
    from executorch_mm.cli.pcm import Pcm
    from executorch_mm.speech.formats import write

    if arguments.audio != ["-"]:
        raise UsageError("transcribe: --live hears standard input: expected - as the only FILE")
    if arguments.format in ("json", "verbose_json") or arguments.output_dir is not None:
        raise UsageError("transcribe: --live writes txt, srt or vtt, to --output or stdout")
    with _runner(arguments) as runner:
        pcm = Pcm(cast("BufferedReader", sys.stdin.buffer), arguments.rate, arguments.channels)
        with runner.live(config, sampling_rate=pcm.rate, channels=pcm.channels) as live:
            segments = _shown_segments(live.stream(pcm))
            with opened(arguments.output) as file:
                for piece in write(arguments.format, segments, words=arguments.words):
                    file.write(piece)
                    file.flush()
        if arguments.stats:
            print(runner.stats, file=sys.stderr)
    return 0


def _shown_segments(events: Iterator[Partial | Segment]) -> Iterator[Segment]:
    from executorch_mm.speech import Segment

    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    for event in events:
        if isinstance(event, Segment):
            sys.stderr.write(clear)
            yield event
        elif clear:
            sys.stderr.write(f"{clear}... {event.text.strip()[-70:]}")
            sys.stderr.flush()


def _transcribe_missing(
    arguments: argparse.Namespace, files: Sequence[AudioFile], config: SpeechConfig
) -> int:
    """Into a folder, what is not there yet; files are heard together where the program can."""
    from executorch_mm.speech import Transcription
    from executorch_mm.speech.formats import write

    ending = arguments.format.removeprefix("verbose_")
    every = zip(files, outputs_in(Path(arguments.output_dir), files, ending), strict=True)
    missing = [(file.path, output) for file, output in every if not output.exists()]
    if len(missing) < len(files):
        complain(f"{len(files) - len(missing)} of {len(files)} files are there already and skipped")
    if not missing:
        return 0
    progress, num_failed = PromptProgress(sys.stderr), 0
    with _model(arguments) as model:
        clips = (stdin_parts() if audio == "-" else audio for audio, _ in missing)
        results = model.map(clips, config, on_error="return")
        for number, ((audio, output), result) in enumerate(zip(missing, results, strict=True), 1):
            progress(number, len(missing) + 1, "transcribe")
            if not isinstance(result, Transcription):
                progress.clear()
                complain(f"{audio}: {result}" if audio not in str(result) else result)
                num_failed += 1
                continue
            with replaced(output) as file:
                if arguments.format in ("json", "verbose_json"):
                    file.write(json.dumps(_json(arguments, result), ensure_ascii=False) + "\n")
                else:
                    file.writelines(write(arguments.format, result.segments, words=arguments.words))
            if arguments.stats:
                progress.clear()
                print(result.stats, file=sys.stderr)
    progress.clear()
    return int(num_failed > 0)


def _json(arguments: argparse.Namespace, result: Transcription) -> dict[str, object]:
    if arguments.format == "json":
        return result.to_dict()
    content: dict[str, object] = json.loads(result.to_verbose_json())
    return content


def _write(file: TextIO, text: str, progress: PromptProgress) -> None:
    progress.clear()
    file.write(text)
    file.flush()


def _segments(events: Iterator[object]) -> Iterator[Segment]:
    from executorch_mm.speech import Segment

    return (event for event in events if isinstance(event, Segment))


def _outputs(arguments: argparse.Namespace, files: Sequence[AudioFile]) -> list[tuple[str, str]]:
    """Each audio file with what it is written to."""
    output = arguments.output
    if output == "-":
        if len(files) > 1 and arguments.format in ("srt", "vtt"):
            raise UsageError(f"transcribe: several files as {arguments.format} need a folder as --output")
        return [(file.path, "-") for file in files]
    folder = Path(output)
    if len(files) == 1 and not folder.is_dir():
        return [(files[0].path, output)]
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"transcribe: --output: expected a folder for {len(files)} files, got {output}")
    outputs = outputs_in(folder, files, arguments.format.removeprefix("verbose_"))
    for place in {place.parent for place in outputs}:
        place.mkdir(parents=True, exist_ok=True)
    return [(file.path, str(place)) for file, place in zip(files, outputs, strict=True)]


def _config(arguments: argparse.Namespace) -> SpeechConfig:
    from executorch_mm import InputError
    from executorch_mm.speech import SpeechConfig

    try:
        config = SpeechConfig(
            language=arguments.language,
            task=arguments.task,
            prompt=arguments.prompt,
            timestamps=arguments.format != "txt",
            word_timestamps=arguments.words,
            vad_filter=arguments.vad,
            beam_size=arguments.beam_size,
            seed=arguments.seed,
        )
        return config if arguments.temperature is None else config.replace(temperature=arguments.temperature)
    except InputError as error:
        raise UsageError(f"transcribe: {error}") from error


def _detector(arguments: argparse.Namespace) -> SileroVad | None:
    if arguments.vad_model is None:
        return None
    from executorch_mm.speech import SileroVad

    return SileroVad(arguments.vad_model)


def _runner(arguments: argparse.Namespace) -> SpeechRunner:
    from executorch_mm.speech import SpeechRunner

    threads = num_threads(arguments)
    files = find_files(arguments)
    return SpeechRunner(files.model, files.tokenizer, data_path=files.data, num_threads=threads)


def _model(arguments: argparse.Namespace) -> SpeechModel | SpeechRunner:
    """One that can hear several files together, if its state allows that."""
    from executorch_mm import InputError
    from executorch_mm.speech import SpeechModel

    threads = num_threads(arguments)
    files = find_files(arguments)
    model = SpeechModel(files.model, files.tokenizer, data_path=files.data, num_threads=threads)
    try:
        model.session().close()
    except InputError:  # its state lies in a delegate: one conversation at a time
        model.close()
        return _runner(arguments)
    return model
