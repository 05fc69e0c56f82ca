"""A classifier too large for one device: its classes are sharded over the ranks, the loss over all of them is exact.

torchrun --nproc-per-node 2 examples/sharded_head.py --classes 1000000 --features 128 --rows 128
"""

import argparse
import os
import resource
import sys
import time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from evenhand import losses
from evenhand.losses.sharded import ClassShard


def network(features: int, classes: int, mesh: DeviceMesh) -> nn.Sequential:
    """A small backbone that every rank has, and a head of which every rank only ever holds its own rows."""
    torch.manual_seed(0)
    with torch.device("meta"):
        head = nn.Linear(features, classes)
    model = nn.Sequential(nn.Linear(features, features), nn.ReLU(), head)
    parallelize_module(model, mesh, {"2": ColwiseParallel(use_local_output=False)})  # logits stay sharded
    head.to_empty(device=mesh.device_type)
    generator = torch.Generator(mesh.device_type).manual_seed(1 + mesh.get_local_rank())
    for parameter in head.parameters():
        nn.init.normal_(parameter.data.to_local(), std=features**-0.5, generator=generator)
    return model


def batch(rows: int, features: int, counts: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The same on all ranks of the class mesh; rare labels are rare."""
    generator = torch.Generator().manual_seed(seed)
    edges = counts.double().cumsum(0)
    labels = torch.searchsorted(edges, torch.rand(rows, generator=generator, dtype=torch.float64) * edges[-1])
    return torch.randn(rows, features, generator=generator), labels


def main(classes: int, features: int, rows: int, steps: int) -> list[float]:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("classes",))
    model = network(features, classes, mesh)
    counts = 10 * classes // torch.arange(1, classes + 1)
    criterion = losses.build("logit-adjusted", counts=counts.numpy(), label_smoothing=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for step in range(steps):
        x, y = batch(rows, features, counts, step)
        started = time.perf_counter()
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
        print(f"[rank {dist.get_rank()}] loss {found[-1]:.4f}, {time.perf_counter() - started:.2f} s", flush=True)
    _, mine = ClassShard.of_rank(classes, mesh.get_group())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"[rank {dist.get_rank()}] {mine:,} of {classes:,} classes, peak memory {peak:.2f} GB")
    dist.destroy_process_group()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option, default in (("classes", 100_000), ("features", 128), ("rows", 128), ("steps", 3)):
        parser.add_argument(f"--{option}", type=int, default=default)
    given = vars(parser.parse_args())
    if "RANK" not in os.environ:
        how = f"torchrun --nproc-per-node 2 {sys.argv[0]}"
        print(f"start it with torchrun, one process per shard: {how}", file=sys.stderr)
        sys.exit(2)
    main(**given)
