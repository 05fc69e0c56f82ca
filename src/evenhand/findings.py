"""The shape of a verdict, shared by the causes that write it and the reports that show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["fault", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One named cause with the evidence for it.

    Attributes:
        cause: id of the cause, for instance ``"double-correction"``; docs/causes/<cause>.md explains it.
        code: stable short code, ``EH`` and three digits.
        title: what happened, a few words.
        severity: ``fault`` (something is wrong), ``warning`` (works as asked, at a price), ``note``.
        probability: how sure, in (0, 1].
        sentence: what a colleague would say, one or two sentences, plain text.
        evidence: the numbers that prove it; JSON values only.
        remedy: what to do and what it costs, plain text.
        snippets: framework -> code to copy (``pytorch``, ``keras``, ``huggingface``, ``lightning``, ``scikit-learn``).
        surer: what the user could add to make this more certain, or "".
    """

    cause: str
    code: str
    title: str
    severity: Severity
    probability: float
    sentence: str
    evidence: dict[str, Any]
    remedy: str
    snippets: dict[str, str] = field(default_factory=dict)
    surer: str = ""
