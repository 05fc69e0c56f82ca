"""Dask: every worker counts its partitions, only tallies travel, and their sum is audited.

python examples/audit_dask.py
"""

import tempfile
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster
from tiny_data import CLASSES, PRIOR, long_tailed

from evenhand import audit_tally
from evenhand.integrations.cluster import tally_partitions


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number in range(8):  # as a batch job would leave them: one file of predictions each
            x, y = long_tailed(2000, seed=number)
            files.append(Path(folder, f"part-{number}.npz"))
            np.savez(files[-1], logits=2.0 * x, target=y)
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            tally = tally_partitions(
                files, client, train_counts=np.rint(1e5 * PRIOR), class_weight=1 / (CLASSES * PRIOR)
            )
    found = audit_tally(tally, name="8 partitions")
    print(repr(found), "\n")
    print(found.verdict.sentence)


if __name__ == "__main__":  # workers are processes that import this file
    main()
