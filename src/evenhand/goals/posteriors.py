"""Calibrated posteriors of some rows, worked out block by block and never held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evenhand.declared import Floats, Ints
from evenhand.goals.decisions import Decision, softmax_rows
from evenhand.tilt import BLOCK_CELLS, FLOOR, Part, Singles, map_blocks

GROUPS = 32  # partial sums of K numbers held at once: one per block would fill gigabytes at 100,000 classes


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Posteriors ``softmax(beta z + c)`` of some rows.

    Attributes:
        z: (n, K) centred logits, see `evenhand.tilt.centred_rows`. beta: scale above 0, one number or (K,).
        parts: row slices with their constants c in ``offset`` (directions are not used); other rows do not count.
        masked: whether any score of z is the stand-in for -inf.
        top: (n,) what was subtracted from each row of z; needed with a scale per class, which does not cancel it.
    """

    z: Singles
    beta: float | Floats
    parts: tuple[Part, ...]
    masked: bool = False
    threads: int = 1
    top: Singles | None = None

    def blocks(self) -> list[tuple[slice, Singles]]:
        """Row slices that fit the cache, with their constant."""
        rows = max(4, BLOCK_CELLS // self.z.shape[1])
        result = []
        for part in self.parts:
            constant = part.offset.astype(np.float32)
            start, stop, _ = part.rows.indices(len(self.z))
            result += [(slice(at, min(stop, at + rows)), constant) for at in range(start, stop, rows)]
        return result

    def scores(self, rows: slice, constant: Singles) -> Singles:
        """``beta z + constant`` of one block; masked classes are -inf whatever is added to them."""
        beta = np.asarray(self.beta, np.float32)
        e: Singles = self.z[rows] * beta
        e += constant
        if self.top is not None and beta.ndim:
            e += self.top[rows, None] * beta
        if self.masked:
            e[self.z[rows] <= FLOOR] = -np.inf
        return e

    def posteriors(self, rows: slice, constant: Singles) -> Singles:
        """(n, K) posteriors of one block."""
        return softmax_rows(self.scores(rows, constant))

    def decide(self, offset: Floats) -> Ints:
        """(rows of all parts,) class of the largest score after adding `offset`, in the order of the parts."""
        b = offset.astype(np.float32)
        found = map_blocks(lambda t: self.scores(t[0], t[1] + b).argmax(axis=1), self.blocks(), self.threads)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def choose(self, decisions: Sequence[Decision]) -> Ints:
        """(decisions, rows of all parts) classes, by each of several decisions in one pass."""

        def block(task: tuple[slice, Singles]) -> Ints:
            e = self.scores(*task)
            p = e if all(d.additive for d in decisions) else softmax_rows(e.copy())
            out = np.empty((len(decisions), len(e)), np.int64)
            for number, d in enumerate(decisions):
                out[number] = choose_rows(d, e, p)
            return out

        found = map_blocks(block, self.blocks(), self.threads)
        return np.concatenate(found, axis=1) if found else np.empty((len(decisions), 0), np.int64)

    def outcome(self, decision: Decision) -> tuple[Floats, Floats, Floats]:
        """What a decision is expected to bring.

        Returns:
            (K,) rows decided m, (K,) expected hits ``sum_i p_i(c) [decided c]``, (K,) expected rows ``sum_i p_i(c)``.
        """
        k = self.z.shape[1]
        blocks = self.blocks()
        step = -(-len(blocks) // GROUPS) or 1

        def group(tasks: list[tuple[slice, Singles]]) -> Floats:
            total = np.zeros((3, k))
            for task in tasks:
                p = self.posteriors(*task)
                j = decision.utilities(p).argmax(axis=1)
                total[0] += np.bincount(j, minlength=k)
                total[1] += np.bincount(j, p[np.arange(len(p)), j], k)
                total[2] += np.ones(len(p), np.float32) @ p
            return total

        groups = [blocks[at : at + step] for at in range(0, len(blocks), step)]
        m, hits, soft = np.sum(map_blocks(group, groups, self.threads), axis=0)
        return m, hits, soft

    def soft_counts(self) -> Floats:
        """(K,) expected rows per class, the sum of the posteriors."""

        def block(task: tuple[slice, Singles]) -> Floats:
            p = self.posteriors(*task)
            return (np.ones(len(p), np.float32) @ p).astype(np.float64)

        return np.asarray(np.sum(map_blocks(block, self.blocks(), self.threads), axis=0), dtype=np.float64)


def choose_rows(decision: Decision, e: Singles, p: Singles) -> Ints:
    """(n,) classes decided, from calibrated scores e (n, K) and their posteriors p; masked classes are not."""
    if decision.additive:  # offsets act on scores: products of tiny probabilities would be ties
        return np.asarray((e + decision.offset.astype(np.float32)).argmax(axis=1))
    u = decision.utilities(p)
    impossible = np.isneginf(e)
    if impossible.any():
        u[impossible] = -np.inf
    return np.asarray(u.argmax(axis=1))
