"""Arrays out of npy, npz and safetensors files, mapped where the bytes lie plainly on disk. Never unpickles."""

from __future__ import annotations

import json
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from evenhand.declared import InputError
from evenhand.files.checks import Array, parsing

ZIP_LOCAL_HEADER = 30
IN_MEMORY = 1 << 26
COPY_CHUNK = 1 << 22


@dataclass(frozen=True)
class Container:
    """Named arrays of one file and, where the format has one, its config string."""

    arrays: dict[str, Array]
    config: str | None = None
    bfloat16: frozenset[str] = frozenset()


def read_npy(path: Path) -> Array:
    """The memory-mapped array of an npy file."""
    with parsing(str(path), "save it again with numpy.save"), path.open("rb") as file:
        shape, order, dtype = _npy_header(file, path.name)
        return _mapped(path, path.name, shape, order, dtype, file.tell(), path.stat().st_size)


def read_npz(path: Path) -> Container:
    """The arrays of an npz file: stored members are mapped, compressed ones are unpacked."""
    remedy = "the file may be cut short; save it again with numpy.savez"
    with parsing(str(path), remedy), zipfile.ZipFile(path) as archive:
        arrays: dict[str, Array] = {}
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                arrays[info.filename.removesuffix(".npy")] = _member(path, archive, info)
    if not arrays:
        raise InputError(f"{path} holds no arrays; save target and logits with numpy.savez")
    return Container(arrays)


def _npy_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], str, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise InputError(f"{name} has npy version {version}, which only structured arrays need; save a plain array")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise InputError(f"{name} holds Python objects, which are never unpickled; convert it with numpy.asarray first")
    if any(length < 0 for length in shape):
        raise InputError(f"{name} has the impossible shape {shape}; save it again")
    return shape, "F" if fortran else "C", dtype


def _mapped(
    path: Path, name: str, shape: tuple[int, ...], order: str, dtype: np.dtype[Any], offset: int, end: int
) -> Array:
    """Map `shape` entries at `offset`, which must end by `end`."""
    size = _size(shape, dtype)
    if offset + size > end:
        raise InputError(
            f"{name} should hold {size} bytes of data but the file ends after {end - offset}; save it again"
        )
    if size == 0:
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if order == "F" else "C")


def _size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    size = dtype.itemsize
    for length in shape:
        size *= length
    return size


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as file:
        shape, order, dtype = _npy_header(file, info.filename)
        header = file.tell()
        if header + _size(shape, dtype) != info.file_size:
            raise InputError(
                f"{info.filename} in {path} should hold {_size(shape, dtype)} bytes of data but holds "
                f"{info.file_size - header}; save it again"
            )
        if info.compress_type == zipfile.ZIP_STORED:
            start = _data_offset(path, info)
            return _mapped(path, info.filename, shape, order, dtype, start + header, start + info.file_size)
        return _unpacked(file, shape, order, dtype)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: its local header has name and extra fields of its own lengths."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(ZIP_LOCAL_HEADER)
    name, extra = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
    return info.header_offset + ZIP_LOCAL_HEADER + name + extra


def _unpacked(file: IO[bytes], shape: tuple[int, ...], order: str, dtype: np.dtype[Any]) -> Array:
    """A compressed member, in memory when small, else through an unnamed temporary file that is mapped."""
    size = _size(shape, dtype)
    if size <= IN_MEMORY:
        data = file.read(size + 1)
        if len(data) != size:
            raise InputError(f"a compressed array should hold {size} bytes but holds {len(data)}; save it again")
        return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")
    with tempfile.TemporaryFile() as spool:
        while chunk := file.read(COPY_CHUNK):
            spool.write(chunk)
        spool.flush()
        if spool.tell() != size:
            raise InputError(f"a compressed array should hold {size} bytes but holds {spool.tell()}; save it again")
        return np.memmap(spool, dtype=dtype, mode="r", shape=shape, order="F" if order == "F" else "C")


SAFETENSORS_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip


def read_safetensors(path: Path) -> Container:
    """The mapped tensors of a safetensors file; the library checks the file, its header tells where the bytes lie."""
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise InputError(
            f"{path} needs the safetensors library; install it with pip install 'evenhand[safetensors]'"
        ) from error
    with parsing(str(path), "save it again with safetensors"):
        with safe_open(path, framework="numpy") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        arrays = {name: _tensor(path, name, spec, 8 + length) for name, spec in header.items()}
    brain = frozenset(name for name, spec in header.items() if spec["dtype"] == "BF16")
    return Container(arrays, config=metadata.get("config"), bfloat16=brain)


def _tensor(path: Path, name: str, spec: dict[str, Any], base: int) -> Array:
    if spec["dtype"] not in SAFETENSORS_DTYPES:
        raise InputError(f"{name} in {path} is {spec['dtype']}; save it as float32 or int64")
    start, stop = spec["data_offsets"]
    dtype = np.dtype(SAFETENSORS_DTYPES[spec["dtype"]])
    return _mapped(path, name, tuple(spec["shape"]), "C", dtype, base + start, base + stop)
