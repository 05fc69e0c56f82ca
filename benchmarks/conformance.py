"""Which properties of a loss hold, in evenhand and in other packages: the table of docs/conformance.md."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata

import click
from tests.conformance.subject import Property, Verdict, judge

from benchmarks.losspeers import PEERS, Peer
from benchmarks.measure import machine

SIGNS = {"pass": "yes", "fail": "NO", "not offered": "-"}


def properties() -> tuple[Property, ...]:
    """All of them, in the order of the table."""
    from tests.conformance.numerics import ARITHMETIC
    from tests.conformance.properties import FORMULAS
    from tests.conformance.sigmoid import MULTI_LABEL

    return (*FORMULAS, *ARITHMETIC, *MULTI_LABEL)


def judged(peer: Peer) -> Iterator[Verdict]:
    """Every property of a package, by the loss of it that offers what the property needs."""
    subjects = peer.load()
    for wanted in properties():
        able = [subject for subject in subjects if wanted.needs <= subject.offers]
        yield judge((able or subjects)[0], wanted)


def lines(verdicts: dict[str, list[Verdict]]) -> Iterator[str]:
    """The table, one row per property and one column per package, and what each failure measured."""
    names = [wanted.name for wanted in properties()]
    width = max(map(len, names))
    yield " " * width + "  " + "  ".join(verdicts)
    for i, name in enumerate(names):
        cells = (SIGNS[of[i].outcome].ljust(len(peer)) for peer, of in verdicts.items())
        yield f"{name:{width}}  " + "  ".join(cells)
    counts = (
        (sum(v.outcome == "pass" for v in of), sum(v.outcome != "not offered" for v in of)) for of in verdicts.values()
    )
    yield f"{'passed of offered':{width}}  " + "  ".join(
        f"{passed}/{offered}".ljust(len(peer)) for peer, (passed, offered) in zip(verdicts, counts, strict=True)
    )
    meanings = {wanted.name: wanted.meaning for wanted in properties()}
    for peer, of in verdicts.items():
        for verdict in of:
            if verdict.outcome == "fail":
                measured = verdict.note or f"error {verdict.error:.3g}, limit {verdict.limit:g}"
                yield f"{peer}: {verdict.name} ({meanings[verdict.name]}): {measured}"


@click.command()
@click.option(
    "--peer", "names", multiple=True, type=click.Choice(list(PEERS)), help="Package; default all. Repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, the machine first.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Which properties of a loss hold, here and in other packages."""
    verdicts: dict[str, list[Verdict]] = {}
    for name in names or PEERS:
        peer = PEERS[name]
        if importlib.util.find_spec(peer.module.split(".")[0]) is None:
            click.echo(f"{name}: not installed; pip install {peer.package}", err=True)
            continue
        click.echo(f"{name} {metadata.version(peer.package)}", err=True)
        verdicts[name] = list(judged(peer))
    if as_json:
        versions = {PEERS[name].package: metadata.version(PEERS[name].package) for name in verdicts}
        click.echo(json.dumps(machine() | {"peers": versions}))
        for name, of in verdicts.items():
            for verdict in of:
                click.echo(json.dumps({"kind": "verdict", "peer": name} | asdict(verdict)))
        return
    for line in lines(verdicts):
        click.echo(line)
