"""The example of EIP-712: domain, nested struct, digest and signature as published there."""

from __future__ import annotations

from typing import Any

import pytest

from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.typed_data import Domain, Struct, digest
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address

PERSON = Struct("Person", (("string", "name"), ("address", "wallet")))
MAIL = Struct("Mail", (("Person", "from"), ("Person", "to"), ("string", "contents")), (PERSON,))
DOMAIN = Domain("Ether Mail", "1", 1, Address(b"\xcc" * 20))
VALUES: dict[str, Any] = {
    "from": {"name": "Cow", "wallet": bytes.fromhex("cd2a3d9f938e13cd947ec05abc7fe734df8dd826")},
    "to": {"name": "Bob", "wallet": b"\xbb" * 20},
    "contents": "Hello, Bob!",
}


def test_the_published_example_gives_the_published_hashes() -> None:
    assert MAIL.type_string() == "Mail(Person from,Person to,string contents)Person(string name,address wallet)"
    assert DOMAIN.separator().hex() == "f2cee375fa42b42143804025fc449deafd50cc031ca257e0b194a650a912090f"
    assert MAIL.hash(VALUES).hex() == "c52c0ee5d84264471806290a3f2c4cecfc5490626bf912d01f240d7a274b371e"
    assert digest(DOMAIN, MAIL, VALUES).hex() == "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2"


def test_the_published_example_gives_the_published_signature() -> None:
    cow = SigningKey(keccak256(b"cow"))
    assert cow.address == VALUES["from"]["wallet"]
    assert cow.sign(digest(DOMAIN, MAIL, VALUES)).hex() == (
        "4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d"
        "07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b91562"
        "1c"
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bytes32", bytes(31)),
        ("address", bytes(32)),
        ("uint8", 256),
        ("uint64", -1),
        ("float", 1),
    ],
)
def test_a_value_that_does_not_fit_its_type_is_refused(kind: str, value: Any) -> None:
    with pytest.raises(ValueError):
        Struct("S", ((kind, "x"),)).hash({"x": value})


def test_a_missing_member_is_refused() -> None:
    with pytest.raises(KeyError):
        PERSON.hash({"name": "Cow"})


def test_arrays_are_hashed_over_their_members() -> None:
    group = Struct("Group", (("uint64[]", "ids"), ("Person[]", "members")), (PERSON,))
    encoded = b"".join(number.to_bytes(32, "big") for number in (1, 2))
    expected = keccak256(
        keccak256(b"Group(uint64[] ids,Person[] members)Person(string name,address wallet)")
        + keccak256(encoded)
        + keccak256(PERSON.hash(VALUES["to"]))
    )
    assert group.hash({"ids": [1, 2], "members": [VALUES["to"]]}) == expected
