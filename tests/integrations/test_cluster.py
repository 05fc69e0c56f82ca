"""Tallies on a real Dask cluster are the tally of all rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

distributed = pytest.importorskip(
    "distributed", reason="Dask's distributed is not installed: pip install 'evenhand[cluster]'"
)

from evenhand import InputError, Tally, audit, audit_tally, from_arrays, tally_predictions  # noqa: E402
from evenhand.integrations.cluster import tally_partition, tally_partitions  # noqa: E402
from evenhand.tally import ADDITIVE, ARRAYS  # noqa: E402

K, ROWS = 5, 4000
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, protocol="inproc://"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def data() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    pi = np.array([50, 25, 15, 7, 3])
    y = rng.choice(K, size=ROWS, p=pi / pi.sum())
    z = rng.normal(size=(ROWS, K)).astype(np.float32)
    z[np.arange(ROWS), y] += 1.5
    return z, y, pi * 100


def equal(ours: Tally, whole: Tally, *, sample: bool = True) -> None:
    for name in (*ADDITIVE, *ARRAYS):
        if getattr(whole, name) is not None:
            np.testing.assert_allclose(getattr(ours, name), getattr(whole, name), rtol=1e-6, err_msg=name)
    for part in (ours.sample, ours.lead) if sample else ():
        theirs = whole.sample if part is ours.sample else whole.lead
        np.testing.assert_array_equal(part.row_id, theirs.row_id)
        np.testing.assert_array_equal(part.scores, theirs.scores)


def load(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return dict(file)


def test_files_arrays_functions_and_futures(client: Any, tmp_path: Path) -> None:
    z, y, counts = data()
    pieces = np.array_split(np.arange(ROWS), 40)  # more than one worker adds at a time
    partitions: list[Any] = [{"logits": z[i], "target": y[i], "row_id": i} for i in pieces]
    np.savez(tmp_path / "0.npz", **partitions[0])
    np.savez(tmp_path / "1.npz", **partitions[1])
    partitions[0] = tmp_path / "0.npz"
    partitions[1] = partial(load, tmp_path / "1.npz")
    partitions[2] = client.submit(dict, partitions[2])
    ours = tally_partitions(partitions, client, train_counts=counts, class_weight="balanced")
    equal(ours, tally_predictions(from_arrays(logits=z, target=y, row_id=np.arange(ROWS))))
    whole = audit(logits=z, target=y, row_id=np.arange(ROWS), train_counts=counts, class_weight="balanced")
    assert audit_tally(ours).scalars() == pytest.approx(whole.scalars(), rel=1e-5)
    assert audit_tally(ours).verdict.cause == whole.verdict.cause


def test_rows_without_ids_get_them(client: Any, tmp_path: Path) -> None:
    z, y, _ = data()
    pieces = np.array_split(np.arange(ROWS), 3)
    ours = tally_partitions([{"logits": z[i], "target": y[i]} for i in pieces], client)
    equal(ours, tally_predictions(from_arrays(logits=z, target=y)), sample=False)
    assert len(np.unique(ours.sample.row_id)) == ROWS
    files = []
    for number, i in enumerate(pieces):
        files.append(tmp_path / f"{number}.parquet")
        pl.DataFrame({"predicted": z[i].argmax(1), "target": y[i]}).write_parquet(files[-1])
    labels = tally_partitions(files, client, train_counts=[1] * K)
    equal(labels, tally_predictions(from_arrays(predicted=z.argmax(1), target=y, train_counts=[1] * K)), sample=False)


def test_a_table_keeps_its_own_ids(tmp_path: Path) -> None:
    z, y, _ = data()
    columns = {"logits": z.tolist(), "target": y, "row_id": np.arange(7, 7 + ROWS)}
    table = pl.DataFrame(columns).with_columns(pl.col("logits").cast(pl.Array(pl.Float32, K)))
    table.write_parquet(tmp_path / "ids.parquet")
    table.drop("row_id").write_parquet(tmp_path / "none.parquet")
    kept, numbered = (tally_partition(tmp_path / f"{name}.parquet", 3).sample.row_id for name in ("ids", "none"))
    assert set(kept) == set(range(7, 7 + ROWS))
    assert set(numbered) == {(3 << 40) + i for i in range(ROWS)}


def test_what_cannot_be_counted_comes_back_as_it_was_raised(client: Any) -> None:
    with pytest.raises(InputError, match="at least one partition"):
        tally_partitions([], client)
    with pytest.raises(InputError, match="got int"):
        tally_partitions([3], client)
    parts = [{"logits": np.eye(2), "target": [0, 1]}, {"logits": np.eye(3), "target": [0, 1, 2]}]
    with pytest.raises(InputError, match="one kind"):
        tally_partitions(parts, client)
