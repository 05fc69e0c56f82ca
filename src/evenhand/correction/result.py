"""A correction: what it does to scores, and how it goes into layers and files.

``scale * logits + offset`` first makes the posteriors right, then adds what the goal asks for. Goals that are no offset
(macro F1, a matrix of costs) decide on the posteriors instead, see `evenhand.goals.decisions`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.correction.storage import hash_names, read_fields, write_fields
from evenhand.counts import to_numpy
from evenhand.declared import Floats, InputError, Ints
from evenhand.goals import Aim, Calibrated, Decision, find_goal
from evenhand.goals.decisions import path, softmax_rows
from evenhand.output import PathLike
from evenhand.tilt import BLOCK_CELLS, FLOOR, Part, centred_rows

ABSTAINED = -1


@dataclass(frozen=True, eq=False)
class Correction:
    """What puts a model's decisions right for a goal: ``scale * logits + offset``, or a decision on its softmax.

    Built by :func:`evenhand.fit_correction` or :meth:`load`.

    Attributes:
        scale: above 0, one number, or (K,) where vector scaling was chosen. offset: (K,) float64, in nats, mean 0.
        goal: what it is for. model: the calibration model chosen, one of `evenhand.correction.calibration.MODELS`.
        evidence: ``before``, ``after``, ``after_interval``, ``difference_interval`` (metric -> value or 95 % interval),
            ``beta``, ``tau``, ``log_likelihood`` (model -> held-out nats per row), ``share`` and ``share_tuned`` (how
            much of the goal's decision was given up, 0 to 1, and would be by :meth:`tuned_to`), ``top_k`` (k -> share
            of rows whose class is among the k best) and ``abstention`` (threshold, coverage, accuracy and its
            interval); all on rows the fit had not seen.
        rows: labelled rows used. folds: cross-fitting folds. recommended: whether harm is excluded. why: in words.
        names_hash: SHA-256 of the class names it belongs to, or None.
        goal_offset: (K,) the part of `offset` that serves the goal and is no calibration; None where it is zero.
        decision: what decides where no offset can; None for an additive correction. Then `offset` is calibration alone.
        cross_fitted: (rows,) class decided for every row it was fitted on, in their order, by a fit that has not seen
            the row: for other metrics than those in `evidence`. (0,) in a correction that was loaded.
    """

    scale: float | Floats
    offset: Floats
    goal: str
    model: str
    evidence: dict[str, Any]
    rows: int
    folds: int
    recommended: bool
    why: str
    names_hash: str | None = None
    goal_offset: Floats | None = None
    decision: Decision | None = None
    cross_fitted: Ints = field(default_factory=lambda: np.empty(0, np.int64), repr=False)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.offset)

    @property
    def additive(self) -> bool:
        """Whether it is one offset per class, so that `apply` followed by argmax decides and a layer can hold it."""
        return self.decision is None

    def apply(self, logits: Any) -> Any:
        """``scale * logits + offset``.

        Args:
            logits: (..., K) NumPy array or torch tensor of floats; float16 and bfloat16 become float32. Classes at
                -inf stay there. For probabilities pass their logarithms.

        Returns:
            (..., K) of the same kind and device. Its softmax is the calibrated posterior, moved for the goal; not moved
            where the correction is not `additive`: then :meth:`predict` decides, not the argmax.

        Raises:
            InputError: the last axis is not K, or the scores are not floating-point numbers.
        """
        if hasattr(logits, "new_tensor"):
            self._check_last_axis(tuple(logits.shape), bool(logits.is_floating_point()))
            wide = logits.float() if logits.element_size() < 4 else logits
            scale = self.scale if isinstance(self.scale, float) else wide.new_tensor(self.scale)
            return wide * scale + wide.new_tensor(self.offset)
        array = to_numpy(logits)
        self._check_last_axis(array.shape, array.dtype.kind == "f")
        if array.dtype.itemsize < 4:
            array = array.astype(np.float32)
        scale = self.scale if isinstance(self.scale, float) else self.scale.astype(array.dtype)
        return array * scale + self.offset.astype(array.dtype)

    def posterior(self, logits: Any) -> Any:
        """(..., K) calibrated class probabilities, the goal left out; arguments and errors as for :meth:`apply`."""
        moved = self.apply(logits)
        if hasattr(moved, "new_tensor"):
            known = moved if self.goal_offset is None else moved - moved.new_tensor(self.goal_offset)
            return known.softmax(-1)
        known = moved if self.goal_offset is None else moved - self.goal_offset.astype(moved.dtype)
        known = np.exp(known - known.max(axis=-1, keepdims=True))
        return known / known.sum(axis=-1, keepdims=True)

    def predict(self, logits: Any, *, abstain_below: float | None = None) -> Any:
        """(...) int64 class decided for every row; a NumPy array or tensor as `logits` is one.

        Args:
            logits: (..., K), see :meth:`apply`.
            abstain_below: answer -1 where the calibrated probability of the class decided is lower;
                ``evidence["abstention"]`` lists thresholds with the coverage and accuracy that were measured.

        Raises:
            InputError: other logits than :meth:`apply` takes, or a threshold outside [0, 1].
        """
        if abstain_below is None:
            if self.additive and hasattr(logits, "new_tensor"):
                return self.apply(logits).argmax(-1)
            return self._by_rows(logits, self._decide)
        number = isinstance(abstain_below, (int, float)) and not isinstance(abstain_below, bool)
        if not number or not 0 <= abstain_below <= 1:
            raise InputError(f"abstain_below must be a probability from 0 to 1, got {abstain_below!r:.40}; 0.5 is half")

        def sure(rows: NDArray[Any]) -> Ints:
            decided, p = self._decide(rows), self.posterior(rows)
            return np.where(p[np.arange(len(p)), decided] < abstain_below, ABSTAINED, decided)

        return self._by_rows(logits, sure)

    def top_k(self, logits: Any, k: int) -> Any:
        """(..., k) int64 classes that serve the goal best, the best first.

        With the goal ``accuracy`` these are the k most probable classes, with ``balanced-accuracy`` the k that give the
        largest mean recall; ``evidence["top_k"]`` says how often the true class was among them.

        Raises:
            InputError: k outside 1 to K, or other logits than :meth:`apply` takes.
        """
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= self.classes:
            raise InputError(f"k must be a whole number from 1 to {self.classes}, got {k!r:.40}; 5 is common")

        def best(rows: NDArray[Any]) -> Ints:
            merit = self._merit(rows)
            some = np.argpartition(-merit, k - 1, axis=1)[:, :k]
            order = np.argsort(-np.take_along_axis(merit, some, 1), axis=1, kind="stable")
            return np.take_along_axis(some, order, 1)

        return self._by_rows(logits, best)

    def tuned_to(self, logits: Any) -> Correction:
        """The same calibration with the goal's decision worked out anew on unlabelled rows.

        Macro F1, the geometric mean and counts are properties of a whole set of predictions. Where that set is at hand,
        its own posteriors tell better than those of older rows which classes to favour; no label is needed.

        Args:
            logits: (n, K) the rows that are to be decided together.

        Raises:
            InputError: a goal whose decision does not depend on the rows, a fit with `at_least`, or other logits.
        """
        goal = find_goal(self.goal)
        if not goal.fitted or goal.name == "worst-group":
            raise InputError(
                f"the decision for the goal {self.goal} is the same for all rows; only those for macro-f1, g-mean and "
                "counts can be tuned to new ones"
            )
        if "at_least" in self.evidence:
            raise InputError(
                "this decision keeps a metric above a limit, measured on the rows it was fitted to; it cannot be tuned "
                "to new ones without labels, so use predict"
            )
        array = to_numpy(logits)
        self._check_last_axis(array.shape, array.dtype.kind == "f")
        if array.ndim != 2 or not len(array):
            raise InputError(f"expected logits (n, {self.classes}) with at least one row, got {array.shape}")
        known = self.offset if self.goal_offset is None else self.offset - self.goal_offset
        z, top = centred_rows(array), array.max(axis=1).astype(np.float32)
        parts = (Part(slice(None), known, np.zeros((self.classes, 0))),)
        rows = Calibrated(z, self.scale, parts, bool(z.min() <= FLOOR), top=top)
        wanted = self.evidence.get("wanted")
        prior = np.full(self.classes, 1 / self.classes)
        aim = Aim(np.log(prior), wanted=None if wanted is None else np.asarray(wanted, np.float64))
        found = goal.rule(rows, aim, None)
        share = float(self.evidence.get("share_tuned", self.evidence.get("share", 0.0)))
        if share > 0:
            prior = rows.soft_counts() / len(z)
            found = path(found, Decision(np.ones(self.classes)), prior, np.array([share]))[0]
        return self.with_decision(known, found)

    def with_decision(self, known: Floats, decision: Decision) -> Correction:
        """A copy that decides by `decision` on the posteriors ``softmax(scale * logits + known)``."""
        extra = decision.offset - decision.offset.mean() if decision.additive else None
        offset = known - known.mean() if extra is None else known - known.mean() + extra
        return replace(self, offset=offset, goal_offset=extra, decision=None if decision.additive else decision)

    def _decide(self, rows: NDArray[Any]) -> Ints:
        """(n,) classes of (n, K) logits."""
        return np.asarray(self._merit(rows).argmax(axis=1))

    def _merit(self, rows: NDArray[Any]) -> NDArray[Any]:
        """(n, K) what the decision takes the maximum of."""
        e: NDArray[Any] = self.apply(rows)
        if self.decision is None:
            return e
        merit = self.decision.utilities(softmax_rows(e.astype(np.float32)))
        merit[np.isneginf(e)] = -np.inf
        return merit

    def _by_rows(self, logits: Any, function: Callable[[NDArray[Any]], Ints]) -> Any:
        """What a function makes of blocks of rows (n, K), in the shape and of the kind of the logits."""
        tensor = hasattr(logits, "new_tensor")
        floating = bool(logits.is_floating_point()) if tensor else None
        array = to_numpy(logits.float() if tensor and logits.element_size() < 4 else logits)
        self._check_last_axis(array.shape, array.dtype.kind == "f" if floating is None else floating)
        flat = array.reshape(-1, array.shape[-1])
        step = max(4, BLOCK_CELLS // self.classes)
        found = [function(flat[start : start + step]) for start in range(0, max(1, len(flat)), step)]
        whole = np.concatenate(found).astype(np.int64)
        whole = whole.reshape((*array.shape[:-1], *whole.shape[1:]))
        return logits.new_zeros(1).long().new_tensor(whole) if tensor else whole

    def fold_into(self, linear: Any, *, again: bool = False) -> None:
        """Put the correction into the last layer, in place: ``weight *= scale``, ``bias = scale * bias + offset``.

        Args:
            linear: an ``nn.Linear`` (or any module with ``weight`` of K rows and ``bias``) whose outputs are the
                logits. A layer without a bias gets one. It is marked by the attribute ``evenhand_correction`` (the
                goal), which a copy keeps and a ``state_dict`` does not.
            again: correct a marked layer once more, for instance after it was given uncorrected weights.

        Raises:
            InputError: the object has no weight, or its weight has not K rows, or a correction is folded in already, or
                the goal is no offset per class.
        """
        from evenhand.correction.folding import fold_layer

        fold_layer(self, linear, again=again)

    def check(self, classes: int, class_names: Iterable[str] | None = None) -> None:
        """Refuse another number of classes, or other class names where both sides have names.

        Raises:
            InputError: one of them differs.
        """
        if classes != self.classes:
            raise InputError(
                f"the correction is for {self.classes} classes but the predictions have {classes}; use the correction "
                "that was fitted for this model"
            )
        if class_names is not None and self.names_hash is not None and hash_names(class_names) != self.names_hash:
            raise InputError(
                "the correction was fitted for other class names, or for another order of them; use the correction "
                "that was fitted for this model"
            )

    def save(self, path: PathLike) -> None:
        """Write a ``.json`` file (offsets inline) or a ``.npz`` file, whole or not at all; schema in docs/fix.md.

        Raises:
            InputError: another ending. OSError: the file cannot be written.
        """
        write_fields(path, {field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def load(
        cls, path: PathLike, *, classes: int | None = None, class_names: Iterable[str] | None = None
    ) -> Correction:
        """Read what :meth:`save` wrote; nothing is unpickled.

        Args:
            path: ``.json`` or ``.npz`` file. classes, class_names: what the model has, to be compared.

        Raises:
            InputError: not such a file, damaged, or made for other classes. OSError: it cannot be opened.
        """
        found = cls(**read_fields(path))
        found.check(found.classes if classes is None else classes, class_names)
        return found

    def _check_last_axis(self, shape: tuple[int, ...], floating: bool) -> None:
        if not floating or not shape or shape[-1] != self.classes:
            raise InputError(
                f"expected floating-point logits with {self.classes} classes on the last axis, got "
                f"{'' if floating else 'other numbers of '}shape {tuple(shape)}; pass the raw scores of the same model"
            )
