"""What changed in the ledger: published bytes, which form a manifest has, and changes that are not the right ones."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from tests import paths
from tests.altered_cbor import Change, changed, double, put, turn
from validator.protocol.codec.ledger_changes import (
    CHANGES_KIND,
    apply_changes,
    check_ledger_part,
    encode_changes,
    encode_ledger_part,
    follow_ledger,
)
from validator.protocol.codec.manifest import MAX_LEDGER_BYTES, decode_ledger, encode_ledger
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address
from validator.protocol.report import Debt, InFlight, Ledger, Reading

VECTORS = json.loads((paths.VECTORS / "manifest.json").read_text())["changes"]
ONE, TWO, THREE = (Address(bytes([n]) * 20) for n in (1, 2, 3))
BEFORE = Ledger(
    in_flight=(InFlight(3, {"a": 5}, {ONE: 7}, {}), InFlight(4, {}, {}, {TWO: 9})),
    owed={"a": Debt(1, 3, 0), "b": Debt(2, 4, 1), "c": Debt(5, 4, 1), "～": Debt(8, 4, 1)},
    cumulative={(ONE, ONE): Reading(1, 5), (ONE, TWO): Reading(2, 8), (TWO, ONE): Reading(2, 9)},
)
AFTER = Ledger(
    in_flight=(InFlight(4, {}, {}, {TWO: 9}), InFlight(5, {"b": 2}, {}, {})),
    owed={"a": Debt(3, 3, 0), "d": Debt(1, 5, 1), "～": Debt(8, 4, 1)},
    cumulative={(ONE, TWO): Reading(2, 11), (ONE, THREE): Reading(2, 1), (TWO, ONE): Reading(2, 9)},
)
"""Report 3 is settled, 5 is new; b and c owe nothing any more, d does; ONE has rested, read on, and read elsewhere."""


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_changes_have_the_bytes_of_the_vector(vector: dict[str, Any]) -> None:
    before, after = (decode_ledger(bytes.fromhex(vector[name])) for name in ("before", "after"))
    data = bytes.fromhex(vector["canonical"])
    assert encode_changes(before, after) == data
    assert apply_changes(before, data) == after
    assert json.loads(json.dumps(cbor2.loads(data), default=lambda b: "0x" + b.hex())) == vector["fields"]


def test_only_what_is_other_is_said() -> None:
    assert cbor2.loads(encode_changes(BEFORE, AFTER)) == [
        CHANGES_KIND,
        [3],
        [[5, [["b", b"\x02"]], [], []]],
        ["b", "c"],
        [["a", b"\x03", 3, 0], ["d", b"\x01", 5, 1]],
        [[ONE, ONE]],
        [[ONE, TWO, 2, 11], [ONE, THREE, 2, 1]],
    ]
    assert cbor2.loads(encode_changes(AFTER, AFTER)) == [CHANGES_KIND, [], [], [], [], [], []]


def test_an_epochs_first_manifest_has_the_whole_and_others_what_is_shorter() -> None:
    assert encode_ledger_part(BEFORE, AFTER, first=True) == encode_ledger(AFTER)
    assert encode_ledger_part(Ledger(), AFTER, first=False) == encode_ledger(AFTER)
    assert encode_ledger_part(BEFORE, Ledger(), first=False) == encode_ledger(Ledger())
    more = replace(AFTER, owed={**(AFTER.owed or {}), "e": Debt(1, 6, 1)})
    assert encode_ledger_part(AFTER, more, first=False) == encode_changes(AFTER, more)


def test_a_ledger_is_followed_from_any_manifest_with_the_whole() -> None:
    more = replace(AFTER, owed={**(AFTER.owed or {}), "e": Debt(1, 6, 1)})
    parts = [encode_ledger(BEFORE), encode_changes(BEFORE, AFTER), encode_changes(AFTER, more)]
    found: Ledger | None = None
    for part in parts:
        check_ledger_part(part)
        found = follow_ledger(found, part)
    assert found == more
    assert follow_ledger(BEFORE, encode_ledger(more)) == more
    with pytest.raises(MalformedInput, match="nothing is known of the ledger that they change"):
        follow_ledger(None, parts[1])


WRONG_OF_THEMSELVES: list[tuple[str, Change]] = [
    ("another version", put(0, "ledger-changes/2")),
    ("a field less", lambda fields: fields.pop()),
    ("a field more", double()),
    ("numbers that are gone no list", put(1, 3)),
    ("a number that is gone as text", put(1, ["3"])),
    ("a number that is gone twice", double(1)),
    ("a report of three fields", put(2, 0, [5, [], []])),
    ("a report twice", double(2)),
    ("streams that are gone not ascending", turn(3)),
    ("a stream that is gone as bytes", put(3, [b"b"])),
    ("debts not ascending", turn(4)),
    ("a debt of zero", put(4, 0, ["a", b"", 3, 0])),
    ("a stream both gone and set", put(3, ["a", "b"])),
    ("a pair that is gone of one address", put(5, [[ONE]])),
    ("a pair that is gone of 19 bytes", put(5, [[ONE, bytes(19)]])),
    ("a pair that is gone as text", put(5, ["pair"])),
    ("a reading twice", double(6)),
    ("a reading of zero bytes", put(6, 0, [ONE, TWO, 2, 0])),
]
WRONG_BESIDE_THE_LEDGER: list[tuple[str, Change, str]] = [
    ("a report gone that was not there", put(1, [2]), "take out report 2, which is not"),
    ("a stream gone that owed nothing", put(3, ["b", "x"]), "take out stream 'x', which is not"),
    ("a pair gone that was not there", put(5, [[THREE, ONE]]), "take out the reading of 0x0303"),
    ("a debt set to what it is", put(4, [["～", b"\x08", 4, 1]]), "set stream '～' to what it is already"),
    ("a report set to what it is", put(2, [[4, [], [], [[TWO, b"\x09"]]]]), "set report 4 to what it is already"),
    ("a reading set to what it is", put(6, [[TWO, ONE, 2, 9]]), "set the reading of 0x0202"),
]


@pytest.mark.parametrize(("name", "change"), WRONG_OF_THEMSELVES, ids=[n for n, _ in WRONG_OF_THEMSELVES])
def test_changes_that_are_not_exactly_ours_are_refused_by_whoever_has_no_ledger(name: str, change: Change) -> None:
    data = changed(encode_changes(BEFORE, AFTER), change)
    with pytest.raises(MalformedInput):
        check_ledger_part(data)
    with pytest.raises(MalformedInput):
        apply_changes(BEFORE, data)


@pytest.mark.parametrize(
    ("name", "change", "reason"), WRONG_BESIDE_THE_LEDGER, ids=[n for n, _, _ in WRONG_BESIDE_THE_LEDGER]
)
def test_changes_of_another_ledger_are_refused_by_name(name: str, change: Change, reason: str) -> None:
    data = changed(encode_changes(BEFORE, AFTER), change)
    check_ledger_part(data)
    with pytest.raises(MalformedInput, match=reason):
        follow_ledger(BEFORE, data)


def test_changes_are_bounded_and_so_is_what_they_make() -> None:
    with pytest.raises(MalformedInput, match="exceed"):
        apply_changes(BEFORE, bytes(MAX_LEDGER_BYTES + 1))
    most = Ledger(owed={f"{n:0250}": Debt(1, 0, 0) for n in range(30_000)})
    more = Ledger(owed={f"x{n:0249}": Debt(1, 0, 0) for n in range(3_000)})
    data = encode_changes(Ledger(), more)
    assert len(encode_ledger(most)) <= MAX_LEDGER_BYTES
    with pytest.raises(MalformedInput, match="exceed"):
        apply_changes(most, data)
