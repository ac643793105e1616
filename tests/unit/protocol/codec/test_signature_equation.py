from __future__ import annotations

from functools import cache

import pytest

from tests.builders import a_key
from validator.protocol.codec.recovery import KeyStruct, Signed, check_recovered
from validator.protocol.codec.secp256k1 import CURVE_ORDER
from validator.protocol.codec.signature_equation import MIN_TOGETHER, check_together, is_equation_true
from validator.protocol.hashing import keccak256

COUNT = 3 * (MIN_TOGETHER // 2)


@cache
def signatures() -> tuple[Signed, ...]:
    """Of three publishers in turn."""
    keys = [a_key(1 + number) for number in range(3)]
    digests = [keccak256(b"%d" % number) for number in range(COUNT)]
    return tuple((keys[n % 3].sign(digest), digest, bytes(keys[n % 3].address)) for n, digest in enumerate(digests))


def known_keys() -> dict[bytes, KeyStruct]:
    keys: dict[bytes, KeyStruct] = {}
    assert all(check_recovered(signatures()[:3], keys))
    return keys


def both_say(signed: list[Signed]) -> list[bool | None]:
    """What recovery says of each, with all that the equation must say to agree."""
    recovered = list(check_recovered(signed))
    assert check_together(signed, {}) == recovered
    assert check_together(signed, known_keys()) == recovered
    return recovered


def twin(signature: bytes) -> bytes:
    """The other signature that recovers to the same key: -s, and the other point."""
    s = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def test_the_equation_holds_for_what_publishers_signed() -> None:
    assert is_equation_true(signatures(), known_keys())
    assert is_equation_true(signatures()[:1], known_keys())
    assert is_equation_true([signatures()[0]] * 5, known_keys())
    assert both_say(list(signatures())) == [True] * COUNT


def test_the_equation_holds_for_high_s_as_recovery_does() -> None:
    twins = [(twin(signature), digest, address) for signature, digest, address in signatures()]
    assert is_equation_true(twins, known_keys())
    assert both_say(twins) == [True] * COUNT


@pytest.mark.parametrize("place", [0, 1, COUNT // 2, COUNT - 1])
@pytest.mark.parametrize("change", ["flipped v", "negated s", "bit of r", "bit of s", "digest", "address"])
def test_one_forgery_among_many_is_seen_and_is_the_only_one_refused(change: str, place: int) -> None:
    signature, digest, address = signatures()[place]
    s = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    forged: Signed = {
        "flipped v": (signature[:64] + bytes([55 - signature[64]]), digest, address),
        "negated s": (signature[:32] + s.to_bytes(32, "big") + signature[64:], digest, address),
        "bit of r": (bytes([signature[0] ^ 1]) + signature[1:], digest, address),
        "bit of s": (signature[:63] + bytes([signature[63] ^ 1]) + signature[64:], digest, address),
        "digest": (signature, keccak256(digest), address),
        "address": (signature, digest, signatures()[place + 1 if place < COUNT - 1 else 0][2]),
    }[change]
    signed = list(signatures())
    signed[place] = forged
    assert not is_equation_true(signed, known_keys())
    said = both_say(signed)
    assert not said.pop(place)
    assert all(said)


def test_errors_that_cancel_each_other_out_are_seen() -> None:
    """Two of one publisher that exchanged points, or numbers: sums without factors would be the same."""
    signed = list(signatures())
    (a, first, address), (b, second, _) = signed[0], signed[3]
    for left, right in (
        (b, a),
        (a[:32] + b[32:], b[:32] + a[32:]),
        (b[:32] + a[32:64] + b[64:], a[:32] + b[32:64] + a[64:]),
        (twin(a)[:64] + a[64:], twin(b)[:64] + b[64:]),
    ):
        signed[0], signed[3] = (left, first, address), (right, second, address)
        assert not is_equation_true(signed, known_keys())
        assert both_say(signed)[:4] == [False, True, True, False]


def test_what_is_no_signature_stands_beside_the_equation() -> None:
    signature, digest, address = signatures()[0]
    zero, order = bytes(32), CURVE_ORDER.to_bytes(32, "big")
    odd = [
        (text, digest, address)
        for text in (
            signature[:64],
            signature + b"\0",
            b"",
            signature[:64] + b"\x1d",
            zero + signature[32:],
            order + signature[32:],
            signature[:32] + zero + signature[64:],
            signature[:32] + order + signature[64:],
            b"\xff" * 64 + signature[64:],
        )
    ]
    assert both_say([*odd, *signatures(), *odd]) == [None] * len(odd) + [True] * COUNT + [None] * len(odd)


def test_a_signer_for_another_is_no_key_of_his() -> None:
    """As contracts sign: the signer is somebody, and not the address."""
    contract = b"\x11" * 20
    signed = [(signature, digest, contract) for signature, digest, _ in signatures()]
    keys: dict[bytes, KeyStruct] = {}
    assert check_together(signed, keys) == [False] * COUNT
    assert keys == {}


def test_keys_are_learned_of_whoever_signed_and_of_nobody_else() -> None:
    keys: dict[bytes, KeyStruct] = {}
    forged = [(signatures()[1][0], digest, a_key(9).address) for _, digest, _ in signatures()[:5]]
    assert check_together([*forged, *signatures()], keys) == [False] * 5 + [True] * COUNT
    assert keys == known_keys()
