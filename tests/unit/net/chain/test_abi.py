"""Calls, results and errors of the contracts as bytes."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode

import contracts_abi
from validator.net.chain.abi import MAX_ITEMS, decode_values, explain_revert, interface
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import keccak256


def test_every_contract_loads_and_an_unknown_one_does_not() -> None:
    assert {name: len(interface(name).bytecode) > 500 for name in contracts_abi.NAMES} == dict.fromkeys(
        contracts_abi.NAMES, True
    )
    with pytest.raises(KeyError):
        contracts_abi.load("../pyproject")


def test_selectors_are_those_of_the_signature() -> None:
    transfer = interface("Token").function("transfer")
    assert transfer.selector.hex() == "a9059cbb"
    assert transfer.inputs == ("address", "uint256")
    assert interface("StoreManager").events["StoreUpdated"] == keccak256(b"StoreUpdated(string,bool,uint256)")


def test_structs_are_tuples_in_signatures() -> None:
    report = interface("ReportManager").function("submitReport").inputs[0]
    assert report.startswith("(bytes32,uint32,uint64,uint64,bytes32,")
    assert report.endswith(",bytes,address[],bytes32)")


def test_texts_and_addresses_come_back_as_bytes() -> None:
    data = encode(["string", "address", "address[]"], ["ü", "0x" + "11" * 20, ["0x" + "22" * 20]])
    expected = ("ü".encode(), b"\x11" * 20, (b"\x22" * 20,))
    assert decode_values(("string", "address", "address[]"), data, "x") == expected
    broken = encode(["bytes"], [b"\xff\xfe"])
    assert decode_values(("string",), broken, "x") == (b"\xff\xfe",)


@pytest.mark.parametrize(
    ("types", "data"),
    [
        (("uint256",), b""),
        (("uint256",), bytes(31)),
        (("string",), b"\xff" * 32),
        (("string",), (32).to_bytes(32, "big") + (1 << 200).to_bytes(32, "big")),
        (("bool",), (2).to_bytes(32, "big")),
        (("address",), b"\xff" * 32),
        (("uint256[]",), (32).to_bytes(32, "big") + (MAX_ITEMS + 1).to_bytes(32, "big") + bytes(32 * 10)),
        (("uint256[]",), (1 << 64).to_bytes(32, "big")),
        (("uint256",), bytes((4 << 20) + 32)),
    ],
)
def test_results_that_are_not_their_abi_are_refused(types: tuple[str, ...], data: bytes) -> None:
    with pytest.raises(MalformedInput):
        decode_values(types, data, "result")


def test_a_list_that_names_one_large_tail_many_times_is_refused_before_it_is_built() -> None:
    count, tail = 4000, b"x" * (1 << 20)
    offsets = b"".join((32 * count).to_bytes(32, "big") for _ in range(count))
    body = count.to_bytes(32, "big") + offsets + len(tail).to_bytes(32, "big") + tail
    with pytest.raises(MalformedInput, match="larger than its bytes"):
        decode_values(("string[]",), (32).to_bytes(32, "big") + body, "bomb")


def test_arguments_that_do_not_fit_are_our_own_mistake() -> None:
    with pytest.raises(InvariantError, match="transfer"):
        interface("Token").function("transfer").encode(("0x11", 1))
    with pytest.raises(InvariantError, match="no function"):
        interface("Token").function("burn")


def test_reverts_are_named() -> None:
    errors = interface("ReportManager").errors
    by_name = {entry.name: entry.selector for entry in errors.values()}
    assert explain_revert(by_name["WrongNumber"] + encode(["uint64"], [7])) == "WrongNumber(7)"
    assert explain_revert(by_name["NotConserved"]) == "NotConserved"
    assert explain_revert(bytes.fromhex("08c379a0") + encode(["string"], ["no\nway"])) == "no?way"
    assert explain_revert(bytes.fromhex("4e487b71") + encode(["uint256"], [0x11])) == "Panic(0x11)"
    assert explain_revert(b"") == "reverted"
    assert explain_revert(b"\1\2\3\4") == "reverted with 0x01020304"
    assert explain_revert(by_name["WrongNumber"] + b"\1") == f"reverted with 0x{by_name['WrongNumber'].hex()}01"
