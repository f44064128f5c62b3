"""What the way over HTTP costs, and whether many clients get what they would get offline.

    python benchmarks/bench_server.py MODEL [--tokens 200] [--rounds 6]
    python benchmarks/bench_server.py MODEL --clients 32 --seconds 600

The first form streams the same answer through the server and from a session of the same model, in turns, and
gives the processor time of the server's process for a token of each. The second lets clients in a process of
their own ask as fast as they can for that long; each answer is compared with the offline one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from executorch_mm import MultimodalModel
from executorch_mm.chat import ChatOptions
from executorch_mm.server import BackgroundServer, ServerOptions

PROMPTS = [f"Tell me something about the number {number}." for number in range(8)]
CLIENT = """
import http.client, json, sys, threading, time
port, clients, seconds, tokens, prompts = json.loads(sys.argv[1])
answers, lock = [], threading.Lock()
end = time.monotonic() + seconds

def ask(index):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    turn = 0
    while turn == 0 or time.monotonic() < end:
        prompt = (index + turn) % len(prompts)
        turn += 1
        body = {"model": "m", "messages": [{"role": "user", "content": prompts[prompt]}], "stream": True,
                "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
                "stream_options": {"include_usage": True}}
        start = time.monotonic()
        kind = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), kind)
        response = connection.getresponse()
        text, first = "", None
        for line in response:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                for choice in event.get("choices", []):
                    piece = choice["delta"].get("content")
                    if piece:
                        first = first or time.monotonic() - start
                        text += piece
        with lock:
            answers.append([prompt, text, response.status, first, time.monotonic() - start])

threads = [threading.Thread(target=ask, args=[index]) for index in range(clients)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(answers))
"""


def ask(url: str, clients: int, seconds: float, tokens: int, prompts: list[str]) -> list[Any]:
    """Answers of clients in another process: prompt, text, status, seconds to the first piece and in all."""
    given = json.dumps([int(url.rpartition(":")[2]), clients, seconds, tokens, prompts])
    done = subprocess.run([sys.executable, "-c", CLIENT, given], capture_output=True, text=True, check=True)
    answers: list[Any] = json.loads(done.stdout)
    return answers


def offline(model: MultimodalModel, prompt: str, tokens: int) -> str:
    """The answer without a server, by the same asynchronous stream."""

    async def read() -> str:
        with model.session() as session:
            options = ChatOptions(allowed_local_media_path="")
            messages = [{"role": "user", "content": prompt}]
            stream = session.astream_chat(
                messages, chat_options=options, max_new_tokens=tokens, ignore_eos=True
            )
            return "".join([piece async for piece in stream])

    return asyncio.run(read())


def overhead(model: MultimodalModel, url: str, server_thread: int, tokens: int, rounds: int) -> None:
    """Prints processor time a token, by way, and what of it the event loops take."""
    ask(url, 1, 0, tokens, PROMPTS[:1])
    loop = time.pthread_getcpuclockid(server_thread)
    times: dict[str, list[tuple[float, float]]] = {"offline": [], "HTTP": []}
    for _ in range(rounds):
        for way, run, clock in (
            ("offline", lambda: offline(model, PROMPTS[0], tokens), time.CLOCK_THREAD_CPUTIME_ID),
            ("HTTP", lambda: ask(url, 1, 0, tokens, PROMPTS[:1]), loop),
        ):
            start, whole = time.clock_gettime(clock), time.process_time()
            run()
            spent = time.clock_gettime(clock) - start, time.process_time() - whole
            times[way].append((spent[0] / tokens * 1e3, spent[1] / tokens * 1e3))
    medians = {
        way: [statistics.median(kind) for kind in zip(*each, strict=True)] for way, each in times.items()
    }
    for way, (own, whole) in medians.items():
        print(
            f"{way}: {whole:.2f} ms of processor time a token, {own:.3f} of them in the event loop's thread"
        )
    more = medians["HTTP"][0] - medians["offline"][0]
    print(f"HTTP: {more:.3f} ms more in that thread, {more / medians['offline'][1] * 100:.1f} % of a token")


def expected(model: MultimodalModel, tokens: int) -> list[set[str]]:
    """What the prompts are answered offline.

    With a prefix cache a prompt of which a part is not read again is rounded otherwise, so that there may be
    several: from an empty cache, behind the same prompt, and behind each of the others.
    """
    texts: list[set[str]] = []
    for prompt in PROMPTS:
        found = set()
        for before in ([], [prompt], *([other] for other in PROMPTS if other != prompt)):
            model.clear_cache()
            for each in before:
                offline(model, each, 1)
            found.add(offline(model, prompt, tokens))
        texts.append(found)
    model.clear_cache()
    return texts


def resident() -> float:
    """MiB of this process now."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize() / 2**20


def soak(model: MultimodalModel, url: str, clients: int, seconds: float, tokens: int) -> bool:
    """Prints what the clients saw; returns whether every answer was the offline one."""
    right = expected(model, tokens)
    print("offline answers of each prompt:", [len(texts) for texts in right], flush=True)
    rounds, wrong, firsts, answers = max(int(seconds // 30), 1), 0, [], 0
    start = time.monotonic()
    for number in range(rounds):
        seen = ask(url, clients, seconds / rounds, tokens, PROMPTS)
        wrong += sum(status != 200 or text not in right[prompt] for prompt, text, status, _, _ in seen)
        answers += len(seen)
        firsts += [first for _, _, _, first, _ in seen if first is not None]
        print(f"round {number + 1}: {answers} answers, {wrong} wrong, {resident():.0f} MiB", flush=True)
    passed = time.monotonic() - start
    print(f"{answers * tokens / passed:.0f} tokens/s, first piece {statistics.median(firsts):.2f} s (median)")
    return wrong == 0


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--clients", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prefix-cache", action="store_true", help="clients share one, of the default size")
    parser.add_argument("--interval", type=float, default=0.05)
    given = parser.parse_args()
    cache = {"prefix_cache_bytes": 0} if given.clients and not given.prefix_cache else {}
    model = MultimodalModel.from_pretrained(given.model, num_threads=given.threads, **cache)
    with BackgroundServer(
        {"m": lambda: model}, ServerOptions(port=0, max_waiting=4096, stream_interval=given.interval)
    ) as server:
        if given.clients:
            return int(not soak(model, server.url, given.clients, given.seconds, given.tokens))
        overhead(model, server.url, server.thread_id or 0, given.tokens, given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
