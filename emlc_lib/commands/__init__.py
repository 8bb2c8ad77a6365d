"""The command ``emlc``: a file for each subcommand, imported when that is asked for.

May import all rooms; none imports it.
"""

import gc
import importlib
import os
import sys
from collections.abc import Sequence

import click

COMMANDS = {
    "run": "Train one configuration, resume it or read it back.",
    "sweep": "The same for every combination of values, here or as jobs of a SLURM cluster.",
    "table1": "List the runs of the paper's Table 1, or submit them as jobs.",
    "noise": "Write a file of noisy labels and their split, for others to use.",
    "pretrain": "Make SimCLR weights that runs start from.",
    "correct": "Correct the labels of a folder of images.",
    "clothing1m": "Check or copy a folder of Clothing1M.",
    "reproduce": "Run every notebook on the embedded digits.",
}

# After Ctrl-C, where the same command does not simply go on.
GOES_ON = {
    "emlc correct": "with -p checkpoint DIR the same command goes on from there",
    "emlc clothing1m": "check begins again, copy keeps what it has written",
    "emlc reproduce": "the same command begins again",
}


class _Commands(click.Group):
    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        return importlib.import_module(f".{name}", __name__).command if name in COMMANDS else None

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):  # without importing them
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=_Commands,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="emlc-lib", message="%(version)s")
def emlc():
    """Learning from noisy labels by Enhanced Meta Label Correction.

    Runs are told what to do by papermill's options: -p noise 0.9 -p method mlc -y '{lr: 0.1, epochs: 3}'. Runs
    that were interrupted go on with the same command.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point ``emlc``; returns the exit status.

    What is to be expected ends in one line on stderr: errors with status 2, Ctrl-C with 130.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    name = " ".join(["emlc", *(word for word in arguments[:1] if word in COMMANDS)])
    try:
        return emlc.main(arguments, prog_name="emlc", standalone_mode=False) or 0
    except click.Abort:
        sys.stderr.write(f"{name}: interrupted; {GOES_ON.get(name, 'the same command goes on from there')}\n")
        sys.exit(130)
    except click.ClickException as error:
        line = error.format_message()
    except Exception as error:
        from ..runtime.parameters import Expected

        if not isinstance(error, Expected | OSError):
            raise
        if "TORCHELASTIC_RUN_ID" in os.environ:
            _tell_torchrun(error)
        named = isinstance(error, OSError) and error.filename and error.strerror
        line = f"{error.filename}: {error.strerror}" if named else str(error)
    gc.collect()  # progress bars of the frames that are gone end above the line, and not below it
    sys.stderr.write(f"{name}: error: {' '.join(line.split())}\n")
    sys.exit(2)


def _tell_torchrun(error: Exception) -> None:
    """Hands it to whoever started the processes; of all that have it, the first one says it."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)
    if os.environ.get("RANK", "0") != "0":
        sys.exit(2)
