"""A server of others for bench_server_peers.py, in a Python that has it.

`llama.cpp` is its own server, in the library of the package xllamacpp. `openvino` is openvino-genai: it has
no server and is asked over standard input: lines with a prompt and a number of tokens in, seconds to the
first piece and in all out.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any


def llama_cpp(model: str, threads: int, places: int) -> None:
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path = model
    options.port = 0
    options.n_parallel = places
    options.n_ctx = 1024 * places
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(options)
    said(
        url=server.listening_address,
        version=f"xllamacpp {version('xllamacpp')}",
        system=xllamacpp.get_system_info(),
    )
    sys.stdin.read()


def openvino(model: str, threads: int) -> None:
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)
    said(url="", version=f"openvino-genai {version('openvino-genai')}", system="")
    for line in sys.stdin:
        prompt, tokens = json.loads(line)
        start, first = time.monotonic(), 0.0

        def piece(_text: str, start: float = start) -> Any:
            nonlocal first
            first = first or time.monotonic() - start
            return openvino_genai.StreamingStatus.RUNNING

        pipeline.generate(prompt, streamer=piece, max_new_tokens=tokens, ignore_eos=True)
        said(first=first, whole=time.monotonic() - start)


def said(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    kind, path, threads, places = sys.argv[1:]
    if kind == "llama.cpp":
        llama_cpp(path, int(threads), int(places))
    else:
        openvino(path, int(threads))
