"""The command line: a table of commands, loaded one at a time, and one place where errors become sentences."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

COMMANDS = {
    "audit": "Find out why predicted class counts differ from the true ones.",
    "forecast": "Tell before training what weights, a sampler and a loss will do to the counts.",
    "weights": "Compute class weights from labels or counts.",
    "fix": "Find the offsets that put the predictions right, and apply them.",
    "shift": "Tell whether the class frequencies of new, unlabelled rows have moved.",
    "race": "Train remedies side by side on your data, and tell which one to take.",
    "demo": "See it happen on real data: train, audit, report.",
    "tally": "Count one part of the predictions, to audit all parts together.",
}

EPILOG = """
\b
Examples:
  evenhand demo
  evenhand audit val.npz
  evenhand audit val.npz --html report.html --fail-on any
  evenhand fix val.npz --goal accuracy -o fix.json

Exit codes: 0 done, 1 a --fail-on rule is met, 2 unusable input or options.
"""

RULE_MET, UNUSABLE, DEFECT, INTERRUPTED, PIPE_CLOSED = 1, 2, 70, 130, 141


class Commands(click.Group):
    """A group that knows its commands by name and imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"evenhand.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The table of commands, from the names alone: click would import every one for its help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and flush, so that a closed pipe or a full disk shows here and not after the exit code."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # also where a command ends with an exit code
        except BrokenPipeError:
            _discard_stdout()
            ctx.exit(PIPE_CLOSED)
        except SystemExit as ended:
            # rich answers a closed pipe with exit code 1, which here means that a rule is met.
            if isinstance(ended.__context__, BrokenPipeError):
                _discard_stdout()  # what is still buffered would fail once more when Python ends
                ctx.exit(PIPE_CLOSED)
            raise


@click.group(
    cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=False
)
@click.version_option(package_name="evenhand", message="%(prog)s %(version)s")
def cli() -> None:
    """Find out why a classifier's predicted class counts do not match reality, and put it right."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are told on stderr in one sentence."""
    try:
        result = cli.main(args=arguments, prog_name="evenhand", standalone_mode=False)
    except click.Abort as stopped:
        return _tell(str(stopped) or "interrupted", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        return UNUSABLE
    except OSError as error:
        _discard_stdout()
        return _tell(_os_sentence(error), UNUSABLE)
    except MemoryError:
        return _tell("the memory is not enough for this input; split it and use `evenhand tally`", UNUSABLE)
    except ValueError as error:
        from evenhand.declared import InputError

        if isinstance(error, InputError):
            return _tell(str(error), UNUSABLE)
        return _defect()
    except Exception:
        return _defect()
    return result if isinstance(result, int) else 0


def _tell(sentence: str, code: int) -> int:
    """Say it on one line; file, column and class names are a stranger's text and may hold terminal commands."""
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in sentence)
    click.echo(f"evenhand: {printable}", err=True)
    return code


def _defect() -> int:
    """A mistake of ours: the traceback, and a code that no gate can take for a met rule."""
    traceback.print_exc()
    return DEFECT


def _os_sentence(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return f"{reason[:1].lower()}{reason[1:]}"
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(error.filename)
    return f"{name}: {reason[:1].lower()}{reason[1:]}"


def _discard_stdout() -> None:
    """Send what is still buffered nowhere, else the interpreter reports the same error again while it shuts down."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def main() -> None:
    """Entry point of the ``evenhand`` command."""
    sys.exit(run())


if __name__ == "__main__":
    main()
