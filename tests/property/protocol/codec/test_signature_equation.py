"""Signatures damaged at random amid many: the equation and recovery say the same of each."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import a_key
from validator.protocol.codec.recovery import KeyStruct, Signed, check_recovered
from validator.protocol.codec.signature_equation import MIN_TOGETHER, check_together, is_equation_true
from validator.protocol.hashing import keccak256

COUNT = MIN_TOGETHER + 20
damages = st.lists(
    st.tuples(st.integers(0, COUNT - 1), st.integers(0, 64), st.integers(0, 255)), max_size=4, unique_by=lambda d: d[0]
)


@cache
def signatures() -> tuple[Signed, ...]:
    digests = [keccak256(b"%d" % number) for number in range(COUNT)]
    return tuple(
        (a_key(1 + n % 2).sign(digest), digest, bytes(a_key(1 + n % 2).address)) for n, digest in enumerate(digests)
    )


@given(damages=damages)
@settings(max_examples=25)
def test_a_damaged_signature_has_the_verdict_of_recovery(damages: list[tuple[int, int, int]]) -> None:
    signed = list(signatures())
    for number, at, byte in damages:
        signature, digest, address = signed[number]
        signed[number] = (signature[:at] + bytes([byte]) + signature[at + 1 :], digest, address)
    keys: dict[bytes, KeyStruct] = {}
    recovered = list(check_recovered(signed, keys))
    assert check_together(signed, dict(keys)) == recovered
    in_range = [item for item, verdict in zip(signed, recovered, strict=True) if verdict is not None]
    assert is_equation_true(in_range, keys) == all(verdict is not False for verdict in recovered)
