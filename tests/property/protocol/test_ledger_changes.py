"""Any two ledgers: the changes between them lead from the one to the other, and to nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from validator.protocol.codec.ledger_changes import (
    apply_changes,
    check_ledger_part,
    encode_changes,
    encode_ledger_part,
    follow_ledger,
)
from validator.protocol.codec.manifest import decode_ledger, encode_ledger
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address
from validator.protocol.report import Debt, InFlight, Ledger, Reading

addresses = st.sampled_from([Address(bytes([n]) * 20) for n in range(4)])
streams = st.sampled_from(["a", "b", "～", "\U0001f600", "z" * 40])
amounts = st.integers(1, 3)
flights = st.builds(
    InFlight,
    st.integers(0, 5),
    st.dictionaries(streams, amounts, max_size=2),
    st.dictionaries(addresses, amounts, max_size=2),
    st.dictionaries(addresses, amounts, max_size=2),
)
ledgers = st.builds(
    Ledger,
    st.lists(flights, max_size=3, unique_by=lambda flight: flight.number).map(tuple),
    st.dictionaries(streams, st.builds(Debt, amounts, amounts, amounts)),
    st.dictionaries(st.tuples(addresses, addresses), st.builds(Reading, amounts, amounts)),
)


@given(ledgers, ledgers)
def test_changes_lead_from_any_ledger_to_any_other(before: Ledger, after: Ledger) -> None:
    data = encode_changes(before, after)
    check_ledger_part(data)
    assert encode_ledger(apply_changes(before, data)) == encode_ledger(after)


@given(ledgers, ledgers, st.booleans())
def test_what_a_manifest_holds_is_never_longer_than_the_whole_and_means_the_same(
    before: Ledger, after: Ledger, first: bool
) -> None:
    part = encode_ledger_part(before, after, first=first)
    assert len(part) <= len(encode_ledger(after))
    assert encode_ledger(follow_ledger(None if first else before, part)) == encode_ledger(after)


@given(ledgers, ledgers, ledgers)
def test_no_changes_but_the_right_ones_lead_to_a_ledger(before: Ledger, after: Ledger, other: Ledger) -> None:
    """Bytes that are taken are those that the encoder writes for where they lead."""
    data = encode_changes(other, after)
    try:
        found = apply_changes(before, data)
    except MalformedInput:
        return
    assert encode_changes(before, found) == data
    assert decode_ledger(encode_ledger(found)) == found
