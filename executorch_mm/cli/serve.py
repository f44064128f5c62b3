"""`executorch-mm serve`: a model for clients of OpenAI's API."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm.cli.errors import PROGRAM, UsageError
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.model_arguments import (
    add_draft_model,
    add_model_argument,
    add_threads,
    expect_no_model,
    find_files,
    num_threads,
)

if TYPE_CHECKING:
    from executorch_mm._loading.options import NumThreads
    from executorch_mm._loading.pretrained import ModelFiles
    from executorch_mm.server import Model, ServerOptions

KEY_VARIABLE = "EXECUTORCH_MM_API_KEY"
_MIB = 2**20


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "serve",
        "serve a model to clients of OpenAI's API",
        "Serve a model to clients of OpenAI's API, on this machine unless told otherwise: one that answers, "
        "one that writes down speech, or one that gives vectors.",
        "Needs the extra server. SIGTERM and Ctrl-C end it once what runs has come to its end. One line a "
        "request goes to stderr.",
    )
    model = add_model_argument(parser, required=False)
    model.add_argument("--name", metavar="NAME", help="of the model, for clients (default: by its file)")
    model.add_argument(
        "--also",
        metavar="NAME=MODEL",
        action="append",
        default=[],
        help="another model, which is loaded when it is first asked for; may be repeated",
    )
    add_threads(model)
    add_draft_model(model)
    network = parser.add_argument_group("network")
    network.add_argument(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="to listen on (default: 127.0.0.1, this machine only); 0.0.0.0 for all networks",
    )
    network.add_argument(
        "--port", metavar="N", type=int, default=8000, help="to listen on; 0 for any (default: 8000)"
    )
    network.add_argument(
        "--api-key", metavar="KEY", help=f"that clients must have (default: {KEY_VARIABLE}, or none)"
    )
    network.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="by which clients may call the server; may be repeated",
    )
    network.add_argument("--no-page", action="store_true", help="leave out the page to chat at /")
    limits = parser.add_argument_group("limits")
    for flag, default, what in (
        ("--max-running", 32, "requests that are answered at the same time (default: 32)"),
        (
            "--max-waiting",
            64,
            "requests that may wait behind those; more are told to come again (default: 64)",
        ),
        ("--max-tokens", None, "of an answer, whatever the request says (default: what the context holds)"),
        ("--max-models", None, "models that are loaded at a time (default: all that are asked for)"),
        ("--max-memory", None, "MiB of the process, above which models that nobody uses go (default: any)"),
        ("--max-body", 64, "MiB of a request (default: 64)"),
        ("--max-media", 16, "images and audio clips in a request (default: 16)"),
        ("--max-stored", 256, "responses that are kept for clients to go on from; 0 for none (default: 256)"),
        ("--max-stored-mb", 64, "MiB of them (default: 64)"),
    ):
        limits.add_argument(flag, metavar="N", type=int, default=default, help=what)
    limits.add_argument(
        "--timeout",
        metavar="S",
        type=float,
        default=600.0,
        help="seconds that a request may take from its arrival on; 0 for any (default: 600)",
    )
    limits.add_argument(
        "--idle",
        metavar="S",
        type=float,
        help="seconds after which a model that nobody uses is dropped until it is asked for (default: never)",
    )
    limits.add_argument(
        "--stream-interval",
        metavar="S",
        type=float,
        default=0.05,
        help="seconds between two writes of a stream at least; 0 for each piece alone (default: 0.05)",
    )
    limits.add_argument(
        "--grace",
        metavar="S",
        type=float,
        default=10.0,
        help="seconds for what runs when the server is told to stop (default: 10)",
    )
    limits.add_argument(
        "--media-domain",
        metavar="HOST",
        action="append",
        default=[],
        help="of which messages may name files by URL, at public addresses; may be repeated (default: none)",
    )
    limits.add_argument(
        "--media-folder", metavar="PATH", help="of which messages may name files (default: of none)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: Options out of range or at odds with each other.
        MissingDependencyError: The extra is not installed.
        ExecutorchMMError: The model cannot be loaded.
        OSError: The same.
    """
    from executorch_mm.server import serve
    from executorch_mm.server.loading import limit_media

    options = _options(arguments)
    threads = num_threads(arguments)
    if arguments.model is None:
        expect_no_model(arguments)
    limit_media(options)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if not options.is_local and options.api_key is None:
        logging.getLogger(__name__).warning(
            "others on the network can use this server without a key: --api-key"
        )
    name = arguments.name or _name(arguments.model)

    def say(url: str) -> None:
        print(f"{PROGRAM}: {name} at {url}/v1", file=sys.stderr, flush=True)
        if options.page:
            print(f"{PROGRAM}: a page to chat at {url}/", file=sys.stderr, flush=True)

    serve({name: lambda: _load(arguments, threads), **_others(arguments, name, threads)}, options, say)
    return 0


def _others(arguments: argparse.Namespace, first: str, threads: NumThreads) -> dict[str, Callable[[], Model]]:
    """The models of `--also`."""
    from executorch_mm._loading.pretrained import find_model

    loaders: dict[str, Callable[[], Model]] = {}
    for given in arguments.also:
        name, sign, place = given.partition("=")
        if not name or not sign or not place:
            raise UsageError(f"serve: --also: expected NAME=MODEL, got {given}")
        if name == first or name in loaders:
            raise UsageError(f"serve: --also: expected names that differ, got {name} twice")

        def load(place: str = place) -> Model:
            return _of_files(find_model(place, local_files_only=arguments.local_files_only), threads)

        loaders[name] = load
    return loaders


def _options(arguments: argparse.Namespace) -> ServerOptions:
    from executorch_mm import InputError
    from executorch_mm.server import ServerOptions

    try:
        return ServerOptions(
            host=arguments.host,
            port=arguments.port,
            api_key=arguments.api_key or os.environ.get(KEY_VARIABLE) or None,
            allowed_hosts=tuple(arguments.allow_host),
            max_running=arguments.max_running,
            max_waiting=arguments.max_waiting,
            timeout=arguments.timeout or None,
            max_tokens=arguments.max_tokens,
            max_body_bytes=arguments.max_body * _MIB,
            max_media=arguments.max_media,
            max_stored=arguments.max_stored,
            max_stored_bytes=arguments.max_stored_mb * _MIB,
            max_models=arguments.max_models,
            max_memory=None if arguments.max_memory is None else arguments.max_memory * _MIB,
            idle=arguments.idle,
            stream_interval=arguments.stream_interval,
            media_folder=arguments.media_folder,
            media_domains=tuple(arguments.media_domain),
            page=not arguments.no_page,
            grace=arguments.grace,
        )
    except InputError as error:
        raise UsageError(f"serve: {error}") from error


def _name(model: str | None) -> str:
    """The name that clients use: of the repository, the folder, or the file without its ending."""
    if model is None:
        return "demo"
    path = Path(model)
    return (path.resolve().name if path.exists() else model).removesuffix(".pte").removesuffix(
        ".bundle"
    ) or model


def _load(arguments: argparse.Namespace, threads: NumThreads) -> Model:
    """The first model."""
    from executorch_mm import MultimodalModel

    if arguments.model is None:
        return MultimodalModel.demo(num_threads=threads)
    return _of_files(find_files(arguments), threads, arguments.draft_model)


def _of_files(files: ModelFiles, threads: NumThreads, draft_model: str | None = None) -> Model:
    """The model, as what it is: a language model, one that writes down speech, or one that gives vectors."""
    from executorch_mm.server.loading import load_model

    return load_model(
        files.model,
        files.tokenizer,
        data_path=files.data,
        num_threads=threads,
        draft_model=draft_model,
    )
