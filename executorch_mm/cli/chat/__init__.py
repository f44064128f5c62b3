"""`executorch-mm chat`: a conversation in a terminal, or line by line from standard input."""

from __future__ import annotations

import argparse
import sys

from executorch_mm.cli.errors import UsageError, complain
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.model_arguments import add_draft_model, add_model_argument, add_threads, load_runner
from executorch_mm.cli.sampling_arguments import add_sampling, sampling_config


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "chat",
        "talk with a model",
        "Talk with a model in the terminal, about images and sounds too. /help lists what else can be done; "
        "Ctrl-C stops an answer, Ctrl-D ends the program.",
        "What is typed is kept for the arrow keys in $XDG_STATE_HOME/executorch-mm/chat_history, or in "
        "~/.local/state. From a pipe each line is a message, and the first that fails ends the program. A "
        "line that ends in \\ goes on in the next one; a message that begins with / is written with two.",
    )
    model = add_model_argument(parser, required=False)
    add_threads(model)
    add_draft_model(model)
    model.add_argument("--system", metavar="TEXT", help="system message")
    parser.add_argument("--load", metavar="FILE", help="go on with a conversation that /save has written")
    parser.add_argument(
        "--thinking",
        choices=("show", "hide"),
        help="what the model thinks before it answers (default: shown on a terminal, dimmed)",
    )
    parser.add_argument("--stats", action="store_true", help="print counts and times to stderr")
    parser.add_argument("--no-history", action="store_true", help="neither read nor keep what is typed")
    add_sampling(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: Options out of range or at odds with each other, or a model without a chat template.
        ExecutorchMMError: A file cannot be read, or the model fails; in a terminal only before the first
            message.
    """
    from executorch_mm import ExecutorchMMError
    from executorch_mm.cli.chat.commands import obey
    from executorch_mm.cli.chat.lines import Lines
    from executorch_mm.cli.chat.talk import Talk

    config = sampling_config(arguments)
    with load_runner(arguments) as runner:
        if not runner.has_chat_template:
            raise UsageError(
                "chat: expected a model with a chat template, got none beside tokenizer or model"
            )
        talk = Talk(runner, config, arguments.system, arguments.thinking, has_stats=arguments.stats)
        if arguments.load is not None:
            talk.load(arguments.load)
        with Lines(keeps_history=not arguments.no_history) as lines:
            if lines.is_terminal:
                sys.stderr.write(f"{runner!r}\n/help lists the commands, Ctrl-D ends.\n")
            for line in lines:
                try:
                    if not obey(talk, line):
                        break
                except (ExecutorchMMError, OSError, UsageError, KeyboardInterrupt) as error:
                    if not lines.is_terminal:
                        raise
                    complain("interrupted" if isinstance(error, KeyboardInterrupt) else error)
    return 0
