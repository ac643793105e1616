"""What a manifest says of the ledger: the whole of it, or what changed since the manifest before.

    changes    ["ledger-changes/1", [number…], [report…], [stream…], [debt…], [[consumer, broker]…], [reading…]]

Reports in flight, debts and readings as in a ledger (``manifest``), those that are new or other than before; ahead of
each the keys of those that are gone. All strictly ascending. An epoch's first manifest has the whole, and so has one of
which the changes would not be shorter: the same for all, since both are functions of the two ledgers. Hence a stranger
who has a manifest with the whole follows the ledger from there, and the ledger root of each accepted report tells
whether it is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_bytes, read_list, read_u63
from validator.protocol.codec.manifest import LEDGER_KIND, MAX_LEDGER_BYTES, decode_ledger, encode_ledger
from validator.protocol.errors import MalformedInput, require
from validator.protocol.report import Ledger

CHANGES_KIND = "ledger-changes/1"
WHAT = "ledger changes"

Key = int | bytes | tuple[bytes, bytes]
"""Number of a report, stream id in UTF-8, or consumer and broker: in the order in which a ledger has them."""
Rows = Mapping[Key, list[Any]]


def encode_changes(before: Ledger, after: Ledger) -> bytes:
    """What makes the one ledger of the other."""
    fields: list[list[Any]] = []
    for old, new in zip(_rows(encode_ledger(before)), _rows(encode_ledger(after)), strict=True):
        fields.append([_said(key) for key in old if key not in new])
        fields.append([row for key, row in new.items() if old.get(key) != row])
    return cbor.encode_object(CHANGES_KIND, *fields)


def apply_changes(before: Ledger, data: bytes) -> Ledger:
    """The ledger that these changes make. Inverse of ``encode_changes``: no other bytes are taken for the same.

    Raises:
        MalformedInput: names what they take or set that was not, or was already, in the ledger before.
    """
    result: list[list[list[Any]]] = []
    for old, (gone, new) in zip(_rows(encode_ledger(before)), _read_changes(data), strict=True):
        for key in gone:
            require(key in old, WHAT, f"take out {_shown(key)}, which is not in the ledger before")
        for key, row in new.items():
            require(old.get(key) != row, WHAT, f"set {_shown(key)} to what it is already")
        left_out = set(gone)
        kept = {key: row for key, row in old.items() if key not in left_out}
        result.append([row for _, row in sorted({**kept, **new}.items())])
    return decode_ledger(cbor.encode_object(LEDGER_KIND, *result))


def encode_ledger_part(former: Ledger, ledger: Ledger, *, first: bool) -> bytes:
    """What a manifest holds, where the one before it held ``former``; ``first``: of its epoch."""
    whole = encode_ledger(ledger)
    if first:
        return whole
    changes = encode_changes(former, ledger)
    return changes if len(changes) < len(whole) else whole


def follow_ledger(former: Ledger | None, part: bytes) -> Ledger:
    """The ledger that a manifest means; ``former``: that of the manifest before, None where it is not known.

    Raises:
        MalformedInput: it is neither, or changes of a ledger that is not known.
    """
    if not _are_changes(part):
        return decode_ledger(part)
    if former is None:
        raise MalformedInput(WHAT, "nothing is known of the ledger that they change")
    return apply_changes(former, part)


def check_ledger_part(part: bytes) -> None:
    """All that can be said of it without the ledger before. Raises MalformedInput."""
    if _are_changes(part):
        _read_changes(part)
    else:
        decode_ledger(part)


def _are_changes(part: bytes) -> bool:
    return part[1 : 2 + len(CHANGES_KIND)] == cbor.encode(CHANGES_KIND)


def _rows(ledger: bytes) -> tuple[Rows, Rows, Rows]:
    reports, debts, readings = cbor.decode_object(ledger, LEDGER_KIND, 3, max_bytes=MAX_LEDGER_BYTES)
    return _by_key(reports, 0), _by_key(debts, 1), _by_key(readings, 2)


def _by_key(rows: Sequence[list[Any]], place: int) -> Rows:
    """Rows of a ledger by key, in its order: ``place`` 0 reports, 1 debts, 2 readings."""
    return {_key(row[:2] if place == 2 else row[0], place): row for row in rows}


def _read_changes(data: bytes) -> list[tuple[list[Key], Rows]]:
    """By map: the keys that are gone, and the rows that are new or other."""
    fields = cbor.decode_object(data, CHANGES_KIND, 6, max_bytes=MAX_LEDGER_BYTES)
    decode_ledger(cbor.encode_object(LEDGER_KIND, *fields[1::2]))  # new rows are sound and ascending
    found = []
    for place in range(3):
        gone = [_key(item, place) for item in read_list(fields[2 * place], WHAT)]
        new = _by_key(fields[2 * place + 1], place)
        require(gone == sorted(set(gone)), WHAT, "what is gone does not ascend")
        both = next((key for key in gone if key in new), None)
        require(both is None, WHAT, f"both take out and set {_shown(both)}")
        found.append((gone, new))
    return found


def _key(item: Any, place: int) -> Key:
    if place == 0:
        return read_u63(item, WHAT)
    if place == 1:
        if not isinstance(item, str):
            raise MalformedInput(WHAT, "stream id is not text")
        return item.encode()
    consumer, broker = read_list(item, WHAT, 2)
    return read_bytes(consumer, 20, WHAT), read_bytes(broker, 20, WHAT)


def _said(key: Key) -> Any:
    if isinstance(key, bytes):
        return key.decode()
    return list(key) if isinstance(key, tuple) else key


def _shown(key: Key | None) -> str:
    if isinstance(key, bytes):
        return f"stream {key.decode()[:80]!r}"
    return f"the reading of 0x{key[0].hex()} at 0x{key[1].hex()}" if isinstance(key, tuple) else f"report {key}"
