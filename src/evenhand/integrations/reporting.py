"""Reports written from inside a training run."""

from __future__ import annotations

import warnings
from pathlib import Path

from evenhand.auditing import Audit
from evenhand.output import PathLike, write_text_atomically


def write_report(audit: Audit, html: PathLike, *, ending: str = "", **fill: int) -> Path:
    """Write the report of an audit, whole or not at all; a folder that is missing is made.

    Where it cannot be written there is a warning and no exception: a full disk must not end a training run.

    Args:
        audit: what to write. html: the file, with names of `fill` in braces. ending: added before the suffix.
        fill: what stands for ``{epoch}`` and the like.

    Returns:
        The path.
    """
    name = str(html)
    for key, number in fill.items():  # str.format would stumble over other braces in a path
        name = name.replace(f"{{{key}}}", str(number))
    path = Path(name)
    path = path.with_stem(f"{path.stem}{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, audit.html())
    except OSError as error:
        warnings.warn(f"the audit's report was not written ({error}); its figures are logged", stacklevel=2)
    return path
