from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evenhand.demo.cache import cache_folder, keep, read_arrays, write_arrays


def test_arrays_come_back(tmp_path: Path) -> None:
    given = {"a": np.arange(6).reshape(2, 3), "name": np.array(["é", "<b>"]), "file": np.array(3.5)}
    write_arrays(tmp_path / "x.npz", given)
    back = read_arrays(tmp_path / "x.npz")
    assert back is not None
    assert set(back) == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["a"], given["a"])


def test_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_arrays(tmp_path / "x.npz", {"a": np.array([{}], dtype=object)})
    assert list(tmp_path.iterdir()) == []
    np.savez(tmp_path / "y.npz", a=np.array([{}], dtype=object))
    assert read_arrays(tmp_path / "y.npz") is None


def test_damaged_files_count_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_arrays(path, {"a": np.arange(1000)})
    whole = path.read_bytes()
    assert read_arrays(tmp_path / "none.npz") is None
    rng = np.random.default_rng(0)
    for length in rng.integers(0, len(whole), size=40):
        path.write_bytes(whole[:length])
        assert read_arrays(path) is None
    for place in rng.integers(150, 8000, size=40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert read_arrays(path) is None
    path.write_bytes(rng.bytes(2000))
    assert read_arrays(path) is None


def test_an_unwritable_cache_is_said_not_raised(tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    message = keep(occupied / "evenhand", "x.npz", {"a": np.arange(3)})
    assert message is not None
    assert "cannot be written" in message
    assert keep(None, "x.npz", {"a": np.arange(3)}) is not None
    assert keep(tmp_path / "new" / "evenhand", "x.npz", {"a": np.arange(3)}) is None
    assert [path.name for path in (tmp_path / "new" / "evenhand").iterdir()] == ["x.npz"]


def test_the_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "evenhand"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    folder = cache_folder()
    assert folder is None or folder.is_absolute()


def test_no_home_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() is None
