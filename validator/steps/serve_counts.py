"""How many of the own brokers served each record of a window, found by leaf: asked for variants only."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_u64
from validator.protocol.codec.variants import ServeCounts
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest, InstanceId, InstanceKind
from validator.steps.context import Context

_HEAD = cbor.array_head(2) + cbor.bytes_head(32)
_LABEL = cbor.array_head(2) + cbor.encode("sightings/1")


class CountsByLeaf:
    """The object that collecting saved, searched where it lies: of two million records it has 72 MB.

    Loaded when first asked, since most windows have no variants.
    """

    def __init__(self, load: Callable[[], bytes | None]) -> None:
        self._load = load
        self._data: bytes | None = None
        self._starts = array("Q")

    @classmethod
    def of_instance(cls, context: Context, instance: InstanceId) -> CountsByLeaf:
        """Those of a window; a late set has none."""
        if instance.kind is not InstanceKind.WINDOW:
            return cls(lambda: None)
        return cls(lambda: context.store.windows.load_serve_counts(instance.number))

    def __contains__(self, leaf: Digest) -> bool:
        return self._find(leaf) is not None

    def of(self, leaf: Digest, observers: int = 0) -> ServeCounts:
        """``observers``: how many hold it, for whom counts them."""
        start = self._find(leaf)
        served = 0
        if start is not None and self._data is not None:
            at = start + len(_HEAD) + 32
            count = self._data[at : cbor.scan_item(self._data, at, "sightings")]
            served = read_u64(cbor.decode(count, max_bytes=9), "sightings")
        return ServeCounts(served, observers)

    def _find(self, leaf: Digest) -> int | None:
        if self._data is None:
            self._data = self._load() or b""
            self._index(self._data)
        low, high = 0, len(self._starts)
        while low < high:
            middle = (low + high) // 2
            if self._leaf(middle) < leaf:
                low = middle + 1
            else:
                high = middle
        return self._starts[low] if low < len(self._starts) and self._leaf(low) == leaf else None

    def _leaf(self, number: int) -> bytes:
        start = self._starts[number] + len(_HEAD)
        data = self._data
        assert data is not None
        return data[start : start + 32]

    def _index(self, data: bytes) -> None:
        """Where each pair begins. Raises MalformedInput: not what collecting saves."""
        if not data:
            return
        at = cbor.scan_item(data, len(cbor.array_head(2)), "sightings")
        if data[:at] != _LABEL:
            raise MalformedInput("sightings", "another kind of object")
        first = data[at] & 31
        at += 1 + (0 if first < 24 else 1 << (first - 24))
        starts = array("Q")
        step = len(_HEAD) + 32 + 1
        while at < len(data):
            starts.append(at)
            kind = data[at + step - 1]
            at += step if kind < 24 else step + (1 << (kind - 24))
        self._starts = starts
