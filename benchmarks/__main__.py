"""`python -m benchmarks NAME`: every module or package of this folder that defines a click command called `command`."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

HELPERS = (
    "__init__", "__main__", "cifardata", "cifarnet", "clincdata", "correctionnets", "correctionpeers",
    "correctionpriors", "correctionspeed", "correctionsummary", "correctiontables", "correctiontrial", "generate",
    "losscases", "losspeers", "measure", "peers", "realdata",
)  # fmt: skip


class Benchmarks(click.Group):
    """Loads a benchmark's module only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        here = Path(__file__).parent
        modules = [path.stem for path in here.glob("*.py") if path.stem not in HELPERS]
        return sorted([*modules, *(path.parent.name for path in here.glob("*/__init__.py"))])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(importlib.import_module(f"benchmarks.{cmd_name}"), "command", None)
        return command if isinstance(command, click.Command) else None


@click.command(cls=Benchmarks)
def main() -> None:
    """Measure evenhand: does it name the right cause, how fast is it."""


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
