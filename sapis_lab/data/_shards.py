"""Checksums of arrays that grow: one of the whole, and one of every shard, so that damage has a place.

A shard is a run of rows, of 64 MB at most. An append goes on with the last shard and begins new ones; nothing
that was written before is read. The CRC-32 of two pieces one behind the other follows from theirs (M. Adler,
`crc32_combine` of zlib): in polynomials over GF(2) modulo that of the CRC,

    crc(AB) = crc(A) x^(8 |B|) + crc(B),        and so  crc(B) = crc(AB) + crc(A) x^(8 |B|).

The first gives the checksum of the whole without a second pass over the bytes. The second gives that of rows
which a version without shards appended, which kept the checksum of the whole only.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

SHARD_BYTES = 64_000_000


class Shard(NamedTuple):
    """Rows first:end of an array, with their checksum."""

    first: int
    end: int
    crc32: int


class Sums(NamedTuple):
    """The checksums of an array."""

    whole: int
    shards: tuple[Shard, ...]


def crc32(values: np.ndarray) -> int:
    """CRC-32 of the bytes of an array."""
    return zlib.crc32(as_bytes(values))


def as_bytes(values: np.ndarray) -> memoryview:
    """The bytes of an array, not copied where they lie in one piece."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat.view(np.uint8).data if flat.size else memoryview(b"")


def sums_of(values: np.ndarray) -> Sums:
    """The checksums of a whole array."""
    return extended(Sums(0, ()), values)


def extended(sums: Sums, values: np.ndarray) -> Sums:
    """The checksums after the rows `values` were appended."""
    if not len(values):
        return sums
    row_bytes = values.nbytes // len(values)
    most, whole, shards = max(1, SHARD_BYTES // max(1, row_bytes)), sums.whole, list(sums.shards)
    done = 0
    while done < len(values):
        last = shards[-1] if shards else Shard(0, 0, 0)
        if last.end - last.first >= most:
            last = Shard(last.end, last.end, 0)
        elif shards:
            shards.pop()
        n = min(most - (last.end - last.first), len(values) - done)
        piece = crc32(values[done : done + n])
        shards.append(Shard(last.first, last.end + n, combined(last.crc32, piece, n * row_bytes)))
        whole = combined(whole, piece, n * row_bytes)
        done += n
    return Sums(whole, tuple(shards))


def read_sums(column: dict[str, Any], row_bytes: int) -> Sums | None:
    """The checksums of an array as its manifest has them; None where it has none.

    What its shards do not cover, since a version without them wrote it, is one more shard.
    """
    if column.get("crc32") is None:
        return None
    shards, first, before = [], 0, 0
    for end, value in column.get("shards", ()):
        shards.append(Shard(first, end, value))
        first = end
    if first < column["n"]:
        for shard in shards:
            before = combined(before, shard.crc32, (shard.end - shard.first) * row_bytes)
        rest = column["crc32"] ^ combined(before, 0, (column["n"] - first) * row_bytes)
        shards.append(Shard(first, column["n"], rest))
    return Sums(column["crc32"], tuple(shards))


def are_shards(value: Any, n: int) -> bool:
    """Whether the value in a manifest is that of shards of at most `n` rows: pairs of end and checksum."""
    if not isinstance(value, list):
        return False
    ends = [0]
    for pair in value:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(x) is int for x in pair)):
            return False
        if not (ends[-1] < pair[0] <= n and 0 <= pair[1] < 2**32):
            return False
        ends.append(pair[0])
    return True


def plain_shards(shards: Sequence[Shard]) -> list[list[int]]:
    """The shards as a manifest has them: pairs of end and checksum."""
    return [[shard.end, shard.crc32] for shard in shards]


def combined(first: int, second: int, n_bytes: int) -> int:
    """CRC-32 of bytes with the CRC `first`, followed by `n_bytes` with the CRC `second`."""
    return _times(_power(n_bytes), first) ^ second


# Polynomials as zlib keeps them: the highest of 32 bits is the coefficient of x^0.
_POLYNOMIAL, _ONE, _X = 0xEDB88320, 1 << 31, 1 << 30


def _times(a: int, b: int) -> int:
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


@lru_cache(maxsize=1024)
def _power(n_bytes: int) -> int:
    """x^(8 n_bytes)."""
    power, k = _ONE, 3
    while n_bytes:
        if n_bytes & 1:
            power = _times(_squared(k), power)
        n_bytes >>= 1
        k += 1
    return power


@cache
def _squared(k: int) -> int:
    """x^(2^k)."""
    return _X if k == 0 else _times(_squared(k - 1), _squared(k - 1))
