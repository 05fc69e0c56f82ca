"""What a race keeps: decisions of finished trainings and the settings, in this process or in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import InputError
from evenhand.output import write_bytes_atomically, write_text_atomically

Arrays = dict[str, NDArray[np.int32]]
DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


class Shelf:
    """Decisions of finished trainings by the number of their trial, as long as this process lives."""

    def __init__(self) -> None:
        self._held: dict[int, Arrays] = {}

    def keep(self, number: int, arrays: Arrays) -> None:
        """Keep the decisions of a trial."""
        self._held[number] = arrays

    def read(self, number: int) -> Arrays | None:
        """Its decisions, None where they are lost."""
        return self._held.get(number)


class FolderShelf(Shelf):
    """The same in a folder, for other processes and for those that come after a kill.

    Args:
        folder: made if need be.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def keep(self, number: int, arrays: Arrays) -> None:
        """Write the decisions of a trial."""
        held = BytesIO()
        np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
        write_bytes_atomically(self._path(number), held.getvalue())
        super().keep(number, arrays)

    def read(self, number: int) -> Arrays | None:
        """Its decisions, None where they are lost or damaged."""
        if super().read(number) is None:
            try:
                with self._path(number).open("rb") as file, np.load(file, allow_pickle=False) as held:
                    super().keep(number, {name: held[name] for name in held.files})
            except DAMAGED:
                return None
        return super().read(number)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.npz"


def held_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of the race that a folder holds, or None."""
    try:
        held: dict[str, Any] = json.loads((folder / "race.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"expected JSON in {folder / 'race.json'}, but {error}; take another folder") from error
    return held


def agreed_settings(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Write the settings, or take those of the race that the folder holds where they agree.

    Steps are measured for a budget in time, so that two processes never find the same: those written first count.
    """
    path = folder / "race.json"
    with tempfile.TemporaryDirectory(dir=folder) as beside, contextlib.suppress(FileExistsError):
        draft = Path(beside, path.name)
        write_text_atomically(draft, json.dumps(settings, indent=1, sort_keys=True))
        os.link(draft, path)  # unlike a rename it does not replace what another process has just written
    held = held_settings(folder) or settings
    differing = [key for key in settings if key != "steps" and held.get(key) != settings[key]]
    if differing:
        key = differing[0]
        raise InputError(
            f"expected the race that {folder} holds, got another (its {key}: {held.get(key)!r:.60}, asked for: "
            f"{settings[key]!r:.60}); take another folder, or the options it was begun with"
        )
    return held
