"""What is said into a microphone, while it is said; needs the extra `microphone` and a speech model."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterable

from executorch_mm import InputError, LiveTranscription, MissingDependencyError, Segment, SpeechRunner
from executorch_mm.speech.microphone import microphone

RATE = 16_000


def record(chunks: Iterable[bytes], live: LiveTranscription, seconds: float) -> None:
    end = time.monotonic() + seconds
    try:
        for chunk in chunks:
            live.push(chunk)
            if time.monotonic() >= end:
                return
    except InputError as error:
        print(f"no microphone: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", help="a speech model: a .pte file with its tokenizer beside it, or a folder"
    )
    parser.add_argument("--language", help="of what is said, such as en")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to listen")
    arguments = parser.parse_args()
    try:
        chunks = microphone(RATE)
    except (InputError, MissingDependencyError) as error:
        print(f"no microphone: {error}")
        return
    if not arguments.model:
        print("no model: expected --model with a speech model, such as a Whisper")
        return
    with (
        SpeechRunner.from_pretrained(arguments.model) as runner,
        runner.live(sampling_rate=RATE, language=arguments.language) as live,
    ):
        recorder = threading.Thread(target=record, args=(chunks, live, arguments.seconds), daemon=True)
        recorder.start()
        while recorder.is_alive():
            for event in live.step():
                if isinstance(event, Segment):
                    print(f"{event.start:6.2f} {event.text.strip()}", flush=True)
            time.sleep(0.05)
        for event in live.flush():
            if isinstance(event, Segment):
                print(f"{event.start:6.2f} {event.text.strip()}")


if __name__ == "__main__":
    main()
