"""Which of several processes this one is, as ``torchrun`` tells it; to share a race they need no process group."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from evenhand.declared import InputError


@dataclass(frozen=True)
class Process:
    """One of the processes that were started together.

    Attributes:
        rank: 0 for the one that tells the result. count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def this(cls) -> Process:
        """This one, by ``RANK`` and ``WORLD_SIZE``; alone where they are not set.

        Example:
            >>> Process.this()
            Process(rank=0, count=1)
        """
        found = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")]
        rank, count = (int(text) if text.isdecimal() else 0 for text in found)
        return cls(rank, max(count, 1))

    @property
    def leads(self) -> bool:
        """Whether it tells the result for all."""
        return self.rank == 0

    def require_folder(self, folder: Any, option: str) -> None:
        """Several processes need a place where each sees what the others do.

        Raises:
            InputError: there are several, and no folder.
        """
        if self.count > 1 and folder is None:
            raise InputError(
                f"expected {option}, since the {self.count} processes that were started together (WORLD_SIZE) share a "
                f"race through a folder, got none; name one that all of them reach, or start one process"
            )


def require_no_group() -> None:
    """Every process of a race trains models of its own, and not in step with the others.

    Raises:
        InputError: a process group is open: a loss or layer that waits for the other processes would wait for ever.
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise InputError(
            f"expected no open process group, since every process of a race trains models of its own, got one of "
            f"{dist.get_world_size()} processes; leave init_process_group out, or call destroy_process_group() before"
        )
