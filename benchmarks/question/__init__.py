"""The founding question with measurements: `python -m benchmarks question --help`, told in docs/the-question.md."""

from benchmarks.question.command import command

__all__ = ["command"]
