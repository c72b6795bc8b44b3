"""Tensors -> a few bytes, 8 bits a weight and then LZMA; and back.

A matrix or a kernel of at least 2,048 numbers becomes whole numbers with one fp16 scale per row, everything else stays
as it is. The bytes describe themselves, depend on the tensors alone, and anything but exactly these bytes is refused.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FORMAT = 1
FEWEST = 2048
"""Numbers of a tensor that is worth a scale per row."""
_FEWEST_ROWS = 5
"""Of a tensor whose first axes are shorter (both directions of an LSTM) more axes make the rows."""
_FILTERS: Sequence[Mapping[str, Any]] = (
    # weights have no context: neither the byte before nor the place says anything about the next one
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0},
)


class DamagedError(ValueError):
    """Bytes that nobody packed so."""


@dataclass(frozen=True)
class _Entry:
    """How one tensor is stored.

    scaled: whole numbers of `bits` with a scale per row; half: fp16; same: as the tensor before it, called `like`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: Literal["scaled", "half", "raw", "same"]
    bits: int = 0
    like: str = ""


def pack(tensors: Mapping[str, Tensor], bits: int = 8, rules: Mapping[str, int] | None = None) -> bytes:
    """Every tensor under its name. Raises ValueError when a large float tensor is not finite.

    `rules`: regular expression (matched whole against the names, the first counts) -> bits instead of `bits`: 2 to 8
    with a scale per row, 16 for fp16, 32 for no loss.
    """
    streams = _Streams()
    entries: list[_Entry] = []
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        like = next((entry.name for entry in entries if _is_same(tensor, tensors[entry.name])), None)
        if like is not None:
            entries.append(_entry(name, tensor, "same", like=like))
        elif not tensor.is_floating_point() or (width := _bits(name, bits, rules)) == 32 or not _is_large(tensor):
            entries.append(_entry(name, tensor, "raw"))
            streams.write_planes(_bytes_of(tensor))
        elif width == 16:
            entries.append(_entry(name, tensor, "half"))
            streams.write_planes(_half(name, tensor.float().numpy()).reshape(-1, 1).view(np.uint8))
        else:
            entries.append(_entry(name, tensor, "scaled", bits=width))
            streams.write_scaled(name, _rows(tensor), width)
    return _compressed(entries, streams)


def unpack(data: bytes) -> dict[str, Tensor]:
    """What was packed, with its names, shapes and types. Raises DamagedError."""
    entries, streams = _decompressed(data)
    tensors: dict[str, Tensor] = {}
    try:
        for entry in entries:
            tensors[entry.name] = tensors[entry.like].clone() if entry.kind == "same" else _restored(entry, streams)
        streams.require_end()
    except (KeyError, ValueError, RuntimeError, AttributeError, TypeError) as failure:
        raise DamagedError(f"damaged: {failure}") from None
    return tensors


class _Streams:
    """Bytes of one kind beside each other, which LZMA likes: codes, and each byte of wider numbers for itself."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self._parts: dict[str, list[bytes]] = {}
        self._contents = {name: memoryview(content) for name, content in (contents or {}).items()}

    def write_scaled(self, name: str, rows: NDArray[np.float32], bits: int) -> None:
        """rows: [rows, columns] -> whole numbers of `bits` bits, and an fp16 scale for each row."""
        most = 2 ** (bits - 1) - 1
        scales = _half(name, np.abs(rows).max(axis=1) / most)
        divisors = np.where(scales > 0, scales, 1).astype(np.float32)
        codes = np.clip(np.rint(rows / divisors[:, None]), -most, most).astype(np.int8)
        self._parts.setdefault(f"codes {bits}", []).append(codes.tobytes())
        self.write_planes(scales.reshape(-1, 1).view(np.uint8), "scales")

    def write_planes(self, numbers: NDArray[np.uint8], kind: str = "plane") -> None:
        """numbers: the bytes of each [numbers, bytes]."""
        for place, plane in enumerate(numbers.T):
            self._parts.setdefault(f"{kind} {place} of {numbers.shape[1]}", []).append(plane.tobytes())

    def read_scaled(self, count: int, rows: int, bits: int) -> NDArray[np.float32]:
        codes = np.frombuffer(self._read(f"codes {bits}", count), dtype=np.int8).reshape(rows, -1)
        scales = self.read_planes(rows, 2, "scales").view(np.float16)
        return codes.astype(np.float32) * scales.astype(np.float32)[:, None]

    def read_planes(self, count: int, width: int, kind: str = "plane") -> NDArray[np.uint8]:
        """The bytes of `count` numbers, one number after the other."""
        planes = [self._read(f"{kind} {place} of {width}", count) for place in range(width)]
        return np.stack([np.frombuffer(plane, dtype=np.uint8) for plane in planes], axis=1).reshape(-1)

    def written(self) -> dict[str, bytes]:
        return {name: b"".join(self._parts[name]) for name in sorted(self._parts)}

    def require_end(self) -> None:
        if left := {name: len(content) for name, content in self._contents.items() if content}:
            raise DamagedError(f"more than its tensors say: {left}")

    def _read(self, name: str, count: int) -> memoryview:
        content = self._contents.get(name, memoryview(b""))
        if len(content) < count:
            raise DamagedError(f"{len(content)} bytes are left of '{name}', {count} are needed")
        self._contents[name] = content[count:]
        return content[:count]


def _compressed(entries: Sequence[_Entry], streams: _Streams) -> bytes:
    contents = streams.written()
    header = {
        "format": _FORMAT,
        "tensors": [asdict(entry) for entry in entries],
        "streams": {name: len(content) for name, content in contents.items()},
    }
    first = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    return lzma.compress(first + b"".join(contents.values()), lzma.FORMAT_XZ, lzma.CHECK_SHA256, filters=list(_FILTERS))


def _decompressed(data: bytes) -> tuple[list[_Entry], _Streams]:
    reader = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        content = reader.decompress(data)
        if not reader.eof or reader.unused_data:
            raise DamagedError("its end is missing, or something follows it")
        first, _, body = content.partition(b"\n")
        header = json.loads(first)
        if header["format"] != _FORMAT:
            raise DamagedError(f"of format {header['format']}, which is not {_FORMAT}")
        entries = [_Entry(**{**entry, "shape": tuple(entry["shape"])}) for entry in header["tensors"]]
        contents, start = {}, 0
        for name, length in header["streams"].items():
            contents[name] = body[start : start + length]
            start += length
    except (lzma.LZMAError, ValueError, KeyError, TypeError) as failure:
        raise failure if isinstance(failure, DamagedError) else DamagedError(f"damaged: {failure}") from None
    return entries, _Streams(contents)


def _restored(entry: _Entry, streams: _Streams) -> Tensor:
    dtype: torch.dtype = getattr(torch, entry.dtype)
    count = int(np.prod(entry.shape))
    if entry.kind == "scaled":
        value = torch.from_numpy(streams.read_scaled(count, _row_count(entry.shape), entry.bits))
    elif entry.kind == "half":
        value = torch.from_numpy(streams.read_planes(count, 2).view(np.float16))
    else:
        value = torch.from_numpy(streams.read_planes(count, dtype.itemsize)).view(dtype)
    return value.reshape(entry.shape).to(dtype)


def _entry(name: str, tensor: Tensor, kind: Any, bits: int = 0, like: str = "") -> _Entry:
    return _Entry(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), kind, bits, like)


def _bits(name: str, bits: int, rules: Mapping[str, int] | None) -> int:
    """Of the first rule that matches, else `bits`."""
    found = next((width for pattern, width in (rules or {}).items() if re.fullmatch(pattern, name)), bits)
    if found not in (*range(2, 9), 16, 32):
        raise ValueError(f"{name}: {found} bits; 2 to 8, 16 or 32")
    return found


def _is_large(tensor: Tensor) -> bool:
    return tensor.ndim > 1 and tensor.numel() >= FEWEST


def _is_same(tensor: Tensor, other: Tensor) -> bool:
    """Tied weights stand twice in a state_dict, and once in the file."""
    is_alike = tensor.shape == other.shape and tensor.dtype == other.dtype and _is_large(tensor)
    return is_alike and torch.equal(tensor, other.cpu())


def _rows(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().reshape(_row_count(tuple(tensor.shape)), -1).numpy()


def _row_count(shape: tuple[int, ...]) -> int:
    """The length of the first axis; of the first few when they are short, and never of all."""
    count = shape[0]
    for length in shape[1:-1]:
        if count >= _FEWEST_ROWS:
            break
        count *= length
    return count


def _half(name: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise ValueError(f"{name}: too large for fp16, or not finite")
    return halves


def _bytes_of(tensor: Tensor) -> NDArray[np.uint8]:
    """[numbers, bytes of one]."""
    flat = tensor.reshape(-1, 1)
    if flat.dtype == torch.bool:
        flat = flat.to(torch.uint8)
    content: NDArray[np.uint8] = flat.view(torch.uint8).numpy().reshape(-1, tensor.dtype.itemsize)
    return content
