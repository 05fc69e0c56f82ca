"""Cases that four gloo processes run together; every rank compares its part with the unsharded loss.

The file is executed in each process by `test_ranks.py`, with RANK, WORLD, STORE and RESULT given.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor, init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from evenhand import losses
from evenhand.declared import InputError
from evenhand.losses.exact import exact_mean
from evenhand.losses.functional import cross_entropy, losses_by_row
from evenhand.losses.law import Law
from evenhand.losses.modules.base import SoftmaxLoss
from evenhand.losses.multilabel.equalization import EqualizationV2Loss
from evenhand.losses.pair_offsets import Cloud, Dropped, Seesaw
from evenhand.losses.shapes import Focal, Generalised, InfluenceBalanced, Poly
from evenhand.losses.sharded import ClassShard, sharded_cross_entropy, sharded_losses_by_row

ROWS = 13


def vectors(classes: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    draw = lambda low, high: low + (high - low) * torch.rand(classes, generator=generator, dtype=torch.float64)  # noqa: E731
    return {
        "scale": draw(0.5, 2.0),
        "offset": draw(-3.0, 3.0),
        "margin": draw(0.0, 1.0),
        "temperature": draw(0.5, 2.0),
        "class_weight": torch.exp(draw(-3.0, 3.0)),
        "gamma": draw(0.0, 2.0),
        "smoothing": draw(0.0, 0.4),
    }


def laws(classes: int) -> dict[str, tuple[Law, dict[str, Any]]]:
    """Name -> law and call options."""
    v = vectors(classes)
    weight = {"class_weight": v["class_weight"]}
    generator = torch.Generator().manual_seed(1)
    rowwise = torch.rand(ROWS, generator=generator, dtype=torch.float64)
    seen = torch.arange(classes).flip(0) ** 2 + 1
    adjusted = {name: v[name] for name in ("scale", "offset", "margin", "temperature")}
    return {
        "plain": (Law(), {}),
        "scale": (Law(scale=v["scale"]), {}),
        "offset": (Law(offset=v["offset"]), {}),
        "margin": (Law(margin=v["margin"]), {}),
        "temperature": (Law(temperature=v["temperature"]), {}),
        "weights": (Law(**weight), {}),
        "smoothing weighted": (Law(**weight, label_smoothing=0.2), {}),
        "smoothing uniform": (Law(**weight, label_smoothing=0.2, smoothing_mass="uniform"), {}),
        "smoothing by class": (Law(label_smoothing=v["smoothing"]), {}),
        "z-loss": (Law(**weight, z_loss=0.1), {}),
        "focal": (Law(shape=Focal(v["gamma"], alpha=v["class_weight"])), {}),
        "poly": (Law(shape=Poly(1.5, gamma=0.5)), {}),
        "generalised": (Law(shape=Generalised(0.7), offset=v["offset"]), {}),
        "influence-balanced": (Law(shape=InfluenceBalanced(), **weight), {"extra": rowwise + 1}),
        "sample weights": (Law(**weight), {"sample_weight": rowwise}),
        "ignored rows": (Law(**weight, label_smoothing=0.1), {"ignore_index": 1}),
        "count": (Law(**weight), {"denominator": "count"}),
        "fixed": (Law(**weight), {"denominator": 17.5}),
        "sum": (Law(**weight), {"reduction": "sum"}),
        "none": (Law(**weight), {"reduction": "none"}),
        "everything": (
            Law(**weight, **adjusted, shape=Focal(0.5), label_smoothing=v["smoothing"], z_loss=0.01),
            {"sample_weight": rowwise, "ignore_index": 0},
        ),
        "seesaw": (Law(pair_offset=Seesaw(seen, 0.8, 2.0, 1e-2), scale=v["scale"], temperature=v["temperature"]), {}),
        "seql": (Law(pair_offset=Dropped((seen < 9).double(), 1.0), offset=v["offset"]), {}),  # 1: without chance
        "gcl": (Law(pair_offset=Cloud(torch.zeros(classes)), **weight), {}),
    }


NEEDED = {name: {"rows": 1000} for name in ("sigmoid-focal", "asymmetric", "distribution-balanced", "eqlv2")}
GRADIENTS = ("positive_gradient", "negative_gradient")
CLASSES = (3, 5, 7, 8)  # over four ranks: one empty; one empty and one short; short; even


def data(classes: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    size = shape or (ROWS,)
    logits = 3 * torch.randn(*size, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, size, generator=generator)


def difference(ours: Tensor, theirs: Tensor) -> float:
    if ours.numel() == 0:
        return 0.0
    return float((ours.detach() - theirs.detach()).abs().max() / theirs.detach().abs().max().clamp(min=1e-3))


def back(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    direction = torch.linspace(0.5, 1.5, max(loss.numel(), 1), dtype=loss.dtype).reshape(loss.shape)
    return torch.autograd.grad((loss * direction).sum(), leaves)


class Place:
    """Meshes and groups of this rank."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.four = init_device_mesh("cpu", (4,), mesh_dim_names=("classes",))
        self.grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "classes"))

    def group(self, ranks: int) -> dist.ProcessGroup:
        return self.four.get_group() if ranks == 4 else self.grid["classes"].get_group()


def against_dense(place: Place, ranks: int, classes: int) -> dict[str, float]:
    logits, target = data(classes)
    shard, size = ClassShard.of_rank(classes, place.group(ranks))
    errors = {}
    for name, (law, options) in laws(classes).items():
        whole = logits.clone().requires_grad_()
        dense = cross_entropy(whole, target, law, **options)
        (expected,) = back(dense, whole)
        block = logits[:, shard.first : shard.first + size].clone().requires_grad_()
        loss = sharded_cross_entropy(block, target, law, shard=shard, **options)
        (gradient,) = back(loss, block)
        part = expected[:, shard.first : shard.first + size]
        scale = expected.abs().max()
        errors[name] = max(difference(loss, dense), float((gradient - part).abs().sum() / scale))
    return errors


def by_rows_too(place: Place) -> dict[str, float]:
    """Rows over one mesh dimension, unevenly, classes over the other, through modules and DTensors."""
    errors = {}
    for shape, class_dim, split in (((ROWS,), 1, 0), ((3, 5), -1, 0), ((3, 5), -1, 1), ((5, 3), 1, 0)):
        classes = 7
        logits, target = data(classes, *shape)
        if class_dim == 1 and len(shape) > 1:
            logits = logits.movedim(-1, 1)
        axis = class_dim % logits.dim()
        criterion = SoftmaxLoss(vectors(classes)["class_weight"], label_smoothing=0.1, class_dim=class_dim)
        whole = logits.clone().requires_grad_()
        dense = criterion(whole, target)
        (expected,) = back(dense, whole)
        rows_axis = split if split < axis else split + 1
        placements = (Shard(rows_axis), Shard(axis))
        spread = distribute_tensor(logits, place.grid, placements).requires_grad_()
        labels = distribute_tensor(target, place.grid, (Shard(split), Replicate()))
        for kind, given in (("plain", labels.to_local()), ("DTensor", labels), ("moved", labels.full_tensor())):
            if kind == "moved":
                given = distribute_tensor(target, place.grid, (Replicate(), Replicate()))
            loss = criterion(spread, given)
            (gradient,) = back(loss, spread)
            error = max(difference(loss, dense), difference(gradient.full_tensor(), expected))
            errors[f"{shape} {class_dim} {split} {kind}"] = error
        total = criterion.denominator(labels.to_local())
        with exact_mean(criterion, denominator=total, group=place.grid["rows"].get_group(), averaged_by=1):
            fixed = criterion(spread, labels)
        errors[f"{shape} {class_dim} {split} exact_mean"] = difference(fixed, dense)
        by_row = criterion.rows(spread, labels)
        errors[f"{shape} {class_dim} {split} rows"] = difference(
            by_row.numerator,
            distribute_tensor(
                criterion.rows(logits, target).numerator, place.grid, (Shard(split), Replicate())
            ).to_local(),
        )
    return errors


def rows_alone(place: Place) -> dict[str, float]:
    """A DTensor whose rows are split over four ranks and whose classes are not: pytorch issue 185167."""
    logits, target = data(7)
    criterion = SoftmaxLoss(vectors(7)["class_weight"])
    whole = logits.clone().requires_grad_()
    dense = criterion(whole, target)
    (expected,) = back(dense, whole)
    spread = distribute_tensor(logits, place.four, (Shard(0),)).requires_grad_()
    loss = criterion(spread, distribute_tensor(target, place.four, (Shard(0),)))
    (gradient,) = back(loss, spread)
    errors = {"rows": max(difference(loss, dense), difference(gradient.full_tensor(), expected))}
    repeated = distribute_tensor(logits, place.four, (Replicate(),)).requires_grad_()
    (gradient,) = back(criterion(repeated, target), repeated)
    errors["replicated"] = difference(gradient.to_local(), expected)
    return errors


def learnable(place: Place) -> dict[str, float]:
    """Scale, offset, margin and temperature that learn: every rank gets the whole gradient."""
    logits, target = data(7)
    shard, size = ClassShard.of_rank(7, place.group(4))
    names = ("scale", "offset", "margin", "temperature")
    leaves = [vectors(7)[name].requires_grad_() for name in names]
    law = Law(**dict(zip(names, leaves, strict=True)), label_smoothing=0.1)
    expected = back(cross_entropy(logits.clone().requires_grad_(), target, law), *leaves)
    block = logits[:, shard.first : shard.first + size].clone().requires_grad_()
    gradients = back(sharded_cross_entropy(block, target, law, shard=shard), *leaves)
    return {name: difference(g, e) for name, g, e in zip(names, gradients, expected, strict=True)}


def extremes(place: Place) -> dict[str, float]:
    """Saturated rows in float32, masked classes, a whole masked shard, half precision."""
    shard, size = ClassShard.of_rank(8, place.group(4))
    mine = slice(shard.first, shard.first + size)
    target = torch.tensor([0, 1, 2, 3, 7, 7])
    sure = torch.zeros(6, 8)
    sure[torch.arange(6), target] = torch.tensor([20.0, 40.0, 60.0, 80.0, 200.0, -200.0])
    exact = losses_by_row(sure.double(), target, Law(shape=Focal(0.5))).numerator
    ours = sharded_losses_by_row(sure[:, mine], target, Law(shape=Focal(0.5)), shard=shard).numerator
    relative = ((ours.double() - exact).abs() / exact.clamp(min=1e-37)).max()
    masked = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    masked[:, 4:6] = -torch.inf
    masked[0, 1:] = -torch.inf  # the target's class alone is left
    whole = masked.clone().requires_grad_()
    dense = cross_entropy(whole, target)
    (expected,) = back(dense, whole)
    block = masked[:, mine].clone().requires_grad_()
    loss = sharded_cross_entropy(block, target, shard=shard)
    (gradient,) = back(loss, block)
    half = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    low = half[:, mine].clone().requires_grad_()
    rounded = sharded_cross_entropy(low, target, shard=shard)
    rounded.backward()
    assert low.grad is not None
    same = low.grad.dtype == torch.bfloat16 and rounded.dtype == torch.float32
    return {
        "saturated": float(not relative < 1e-5),  # the rounding of the logit 80, which its exponential multiplies
        "masked value": difference(loss, dense),
        "masked gradient": difference(gradient, expected[:, mine]) if expected[:, mine].abs().max() else 0.0,
        "bfloat16": float(not torch.isclose(rounded, cross_entropy(half.float(), target), rtol=1e-6)),
        "bfloat16 gradient's type": 0.0 if same else 1.0,
    }


def by_name(place: Place) -> dict[str, float]:
    """Every softmax loss of the registry takes a DTensor; those that draw noise are compared elsewhere."""
    logits, target = data(7)
    counts, errors = [900, 500, 200, 90, 30, 9, 2], {}
    for name in losses.available():
        if not isinstance(losses.build(name, counts, **NEEDED.get(name, {})), SoftmaxLoss) or name in ("seql", "gcl"):
            continue
        dense, ours = (losses.build(name, counts, **NEEDED.get(name, {})) for _ in range(2))
        whole = logits.clone().requires_grad_()
        expected = dense(whole, target)
        spread = distribute_tensor(logits, place.four, (Shard(1),)).requires_grad_()
        loss = ours(spread, target)
        (slope,), (gradient,) = back(expected, whole), back(loss, spread)
        errors[name] = max(difference(loss, expected), difference(gradient.full_tensor(), slope))
    return errors


def everything_ignored(place: Place) -> dict[str, float]:
    logits, target = data(7)
    shard, size = ClassShard.of_rank(7, place.group(4))
    block = logits[:, shard.first : shard.first + size].clone().requires_grad_()
    nothing = torch.full_like(target, -100)
    loss = sharded_cross_entropy(block, nothing, shard=shard)
    (gradient,) = back(loss, block)
    as_torch = sharded_cross_entropy(block, nothing, shard=shard, empty="nan")
    return {
        "value": float(loss.detach()),
        "gradient": float(gradient.abs().sum()),
        "nan": 0.0 if as_torch.isnan() else 1.0,
    }


def traffic(place: Place) -> dict[str, float]:
    """Exchanges: one of maxima, one of sums, none backward."""
    logits, target = data(7)
    shard, size = ClassShard.of_rank(7, place.group(4))
    block = logits[:, shard.first : shard.first + size].clone().requires_grad_()
    sent: list[int] = []
    real = dist.all_reduce

    def counting(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        sent.append(tensor.numel())
        return real(tensor, *args, **kwargs)

    dist.all_reduce = counting
    try:
        loss = sharded_cross_entropy(block, target, Law(label_smoothing=0.1, z_loss=0.1), shard=shard)
        forward = list(sent)
        loss.backward()
    finally:
        dist.all_reduce = real
    return {"forward": float(forward != [ROWS, 3 * ROWS]), "backward": float(sent != forward)}


def head(place: Place) -> dict[str, float]:
    """A classifier sharded by torch: gradients of features, weight and bias are those of the unsharded model."""
    errors = {}
    for mesh in (place.four, place.grid["classes"]):
        model, twin = network(), network()
        twin.load_state_dict(model.state_dict())
        x = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        target = torch.randint(7, (ROWS,), generator=torch.Generator().manual_seed(4))
        criterion = SoftmaxLoss(vectors(7)["class_weight"], label_smoothing=0.1)
        dense = criterion(twin(x), target)
        dense.backward()
        parallelize_module(model, mesh, {"2": ColwiseParallel(use_local_output=False)})
        loss = criterion(model(x), target)
        loss.backward()
        worst = difference(loss, dense)
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            gradient = ours.grad.full_tensor() if isinstance(ours.grad, DTensor) else ours.grad
            worst = max(worst, difference(gradient, theirs.grad))
        errors[f"{mesh.size()} ranks"] = worst
    return errors


def head_under_fsdp(place: Place) -> dict[str, float]:
    """Rows over FSDP2, which averages gradients, classes over a mesh of their own."""
    model, twin = network(8), network(8)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    target = torch.randint(8, (12,), generator=torch.Generator().manual_seed(4))
    criterion = SoftmaxLoss(vectors(8)["class_weight"], label_smoothing=0.1)
    dense = criterion(twin(x), target)
    dense.backward()
    parallelize_module(model, place.grid["classes"], {"2": ColwiseParallel(use_local_output=False)})
    fully_shard(model, mesh=place.grid["rows"])
    mine = slice(0, 5) if place.grid["rows"].get_local_rank() == 0 else slice(5, 12)
    with exact_mean(criterion, [target[mine]], group=place.grid["rows"].get_group()):
        loss = criterion(model(x[mine]), target[mine])
        loss.backward()
    mean = loss.detach().clone()
    dist.all_reduce(mean, group=place.grid["rows"].get_group())
    worst = difference(mean / 2, dense)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        worst = max(worst, difference(ours.grad.full_tensor(), theirs.grad))  # type: ignore[union-attr, arg-type]
    return {"gradients": worst}


def network(classes: int = 7) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, classes)).double()


def refusals(place: Place) -> dict[str, float]:
    """0 where an InputError with the right word came."""
    logits, target = data(8)
    sharded = distribute_tensor(logits, place.four, (Shard(1),))
    partial = DTensor.from_local(logits, place.four, (Partial(),))
    twice = distribute_tensor(logits, place.grid, (Shard(1), Shard(1)))
    shard, size = ClassShard.of_rank(8, place.group(4))
    cases: dict[str, tuple[str, Callable[[], Any]]] = {
        "partial": ("partial sums", lambda: sharded_cross_entropy(partial, target)),
        "twice": ("two", lambda: sharded_cross_entropy(twice, target)),
        "shard beside DTensor": ("leave shard out", lambda: sharded_cross_entropy(sharded, target, shard=shard)),
        "DTensor target": (
            "to_local",
            lambda: sharded_cross_entropy(
                logits[:, :size], distribute_tensor(target, place.four, (Replicate(),)), shard=shard
            ),
        ),
        "law of a shard": ("(8,)", lambda: sharded_cross_entropy(sharded, target, Law(offset=torch.zeros(2)))),
        "label": ("[0, 8)", lambda: sharded_cross_entropy(sharded, target + 8)),
    }
    return {name: refused(*case) for name, case in cases.items()}


def refused(word: str, call: Callable[[], Any]) -> float:
    try:
        call()
    except InputError as error:
        return 0.0 if word in str(error) else 1.0
    return 1.0


def twice_differentiated(place: Place) -> dict[str, float]:
    logits, target = data(8)
    shard, size = ClassShard.of_rank(8, place.group(4))
    block = logits[:, shard.first : shard.first + size].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(sharded_cross_entropy(block, target, shard=shard), block, create_graph=True)
    try:
        gradient.sum().backward()
    except RuntimeError as error:
        return {"refused": 0.0 if "once_differentiable" in str(error) else 1.0}
    return {"refused": 1.0}


def sums_of_eqlv2(place: Place) -> dict[str, float]:
    """Each rank's quarter of the rows leaves on all ranks what the whole batch leaves on one."""
    generator = torch.Generator().manual_seed(0)
    split, whole = (EqualizationV2Loss(classes=5, denominator="rows") for _ in range(2))
    ranks = dist.get_world_size()
    for _ in range(4):
        logits = torch.randn(8, 5, generator=generator)
        labels = (torch.rand(8, 5, generator=generator) < 0.3).float()
        split(logits[place.rank :: ranks], labels[place.rank :: ranks])
        whole(logits, labels)  # on every rank: its sums are counted as often as there are ranks
    pairs = {name: (getattr(split, name), getattr(whole, name) / ranks) for name in GRADIENTS}
    return {name: 0.0 if torch.allclose(mine, one, rtol=1e-5) else 1.0 for name, (mine, one) in pairs.items()}


def cases(place: Place) -> dict[str, dict[str, float]]:
    found = {
        f"{ranks} ranks, {classes} classes": against_dense(place, ranks, classes)
        for ranks in (2, 4)
        for classes in CLASSES
    }
    more = (
        by_rows_too,
        rows_alone,
        learnable,
        extremes,
        by_name,
        everything_ignored,
        traffic,
        head,
        head_under_fsdp,
        refusals,
        twice_differentiated,
        sums_of_eqlv2,
    )
    return found | {case.__name__: case(place) for case in more}


def main(rank: int, world: int, store: str, result: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    place = Place(rank)
    exact = runpy.run_path(str(Path(__file__).with_name("ranks_exact.py")))["cases"](place)
    found = cases(place) | exact
    Path(result).write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "worker":
    main(RANK, WORLD, STORE, RESULT)  # type: ignore[name-defined]  # noqa: F821
