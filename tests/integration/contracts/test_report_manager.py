"""What ReportManager accepts, and the name of every refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests import paths
from tests.builders import a_key
from tests.contract_network import CONFIG, ContractNetwork, a_report
from validator.devnet.contracts import WEI
from validator.protocol.codec.report import compact_signature, decode_report, pack_signatures, report_values
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.model import NIL, Address, Digest, Root
from validator.protocol.report import NodeLine, Report, StreamLine

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
LOW = min(a_key(200).address, a_key(201).address)

Change = Callable[[ContractNetwork, Report], Report]


def _moved(report: Report, by: int) -> Report:
    return replace(report, treasury=report.treasury + by)


REFUSED: list[tuple[str, Change, str]] = [
    ("a number ahead", lambda _, r: replace(r, number=1), "WrongNumber(0)"),
    ("a previous root before the first", lambda _, r: replace(r, previous_root=Root(b"\1" * 32)), "WrongPreviousRoot"),
    ("another config digest", lambda _, r: replace(r, config_digest=Digest(b"\1" * 32)), "WrongConfigDigest"),
    ("a last window before the first", lambda _, r: replace(r, last_ms=r.first_ms - 1), "WrongSpan"),
    ("no bundle root", lambda _, r: replace(r, bundle_root=Root(NIL)), "EmptyRoot"),
    ("a treasury one too high", lambda _, r: _moved(r, 1), "NotConserved"),
    ("a treasury one too low", lambda _, r: _moved(r, -1), "NotConserved"),
    ("a block to come", lambda _, r: replace(r, height=r.height + 1000), "UnknownBlock"),
    ("a block hash that is not the chain's", lambda _, r: replace(r, block_hash=Digest(b"\1" * 32)), "UnknownBlock"),
    ("no block hash", lambda _, r: replace(r, block_hash=NIL), "UnknownBlock"),
    ("a next digest without a committee", lambda _, r: replace(r, next_config_digest=CONFIG), "BadConfigDigest"),
    ("a committee without a digest", lambda _, r: replace(r, next_committee=(LOW,)), "BadConfigDigest"),
    (
        "the zero address in the next committee",
        lambda _, r: replace(r, next_committee=(Address(bytes(20)),), next_config_digest=CONFIG),
        "BadCommittee",
    ),
    (
        "33 members in the next committee",
        lambda _, r: replace(
            r, next_committee=tuple(Address(i.to_bytes(20, "big")) for i in range(1, 34)), next_config_digest=CONFIG
        ),
        "BadCommittee",
    ),
    ("another config count", lambda _, r: replace(r, config_count=1), "WrongConfigCount(0)"),
    ("an end after the year 10000", lambda _, r: replace(r, last_ms=1 << 48), "WrongSpan"),
    (
        "1025 lines",
        lambda _, r: replace(r, streams=tuple(StreamLine(1 + i, f"{i:05}", 0, 0) for i in range(1025))),
        "TooManyLines",
    ),
]


@pytest.mark.parametrize(("change", "error"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_a_report_is_refused_for_one_wrong_thing(network: ContractNetwork, change: Change, error: str) -> None:
    report = network.next_report()
    network.chain.mine()
    assert network.refusal(report) == ""
    assert network.refusal(change(network, report)).startswith(error)


def stream_line(index: int, capture: int = 0) -> bytes:
    return index.to_bytes(4, "big") + capture.to_bytes(12, "big") + bytes(8)


def node_line(index: int, amount: int = 0) -> bytes:
    return index.to_bytes(4, "big") + amount.to_bytes(12, "big")


LOSES = 1 << 31
LINES: list[tuple[str, bytes, str]] = [
    ("streams falling", b"\0\2\0\0\0\0" + stream_line(2) + stream_line(1), "LinesNotSorted(1)"),
    ("a stream twice", b"\0\2\0\0\0\0" + stream_line(1) + stream_line(1), "LinesNotSorted(1)"),
    ("a stream without a number", b"\0\1\0\0\0\0" + stream_line(0), "LinesNotSorted(0)"),
    ("consumers falling", b"\0\0\0\2\0\0" + stream_line(2) + stream_line(1), "LinesNotSorted(1)"),
    ("a consumer without a number", b"\0\0\0\1\0\0" + stream_line(0), "LinesNotSorted(0)"),
    ("nodes falling", b"\0\0\0\0\0\2" + node_line(2) + node_line(1), "LinesNotSorted(1)"),
    ("a node twice, losing once", b"\0\0\0\0\0\2" + node_line(1) + node_line(LOSES | 1), "LinesNotSorted(1)"),
    ("a node without a number", b"\0\0\0\0\0\1" + node_line(LOSES), "LinesNotSorted(0)"),
    ("no counts", b"", "BadLines"),
    ("half the counts", b"\0\0\0", "BadLines"),
    ("a line too few", b"\0\1\0\0\0\0", "BadLines"),
    ("a line too many", b"\0\0\0\0\0\0" + node_line(1), "BadLines"),
    ("half a line", b"\0\0\0\0\0\1" + node_line(1)[:8], "BadLines"),
    ("1025 nodes", b"\0\0\0\0\4\1" + b"".join(node_line(i) for i in range(1, 1026)), "TooManyLines"),
    ("captures that the total does not name", b"\0\1\0\0\0\0" + stream_line(1, 5), "NotConserved"),
    ("a penalty that nobody gets", b"\0\0\0\0\0\1" + node_line(LOSES | 1, 5), "NotConserved"),
]


@pytest.mark.parametrize(("lines", "error"), [c[1:] for c in LINES], ids=[c[0] for c in LINES])
def test_lines_that_are_no_report_are_refused_whoever_signed_them(
    network: ContractNetwork, lines: bytes, error: str
) -> None:
    report = network.next_report({}, {}, {})
    network.chain.mine()
    values = list(report_values(report))
    values[14] = lines
    signed = network.chain.call("ReportManager", "reportDigest", tuple(values))[0]
    packed = pack_signatures(
        [k.address for k in network.validators], {k.address: k.sign(signed) for k in network.validators}
    )
    assert network.refusal_of("ReportManager", "submitReport", tuple(values), *packed) == error


# --- signatures -----------------------------------------------------------------------------------


def test_exactly_a_quorum_signs_and_any_quorum_will_do(network: ContractNetwork) -> None:
    report = network.next_report()
    network.chain.mine()
    for absent in network.validators:
        signers = [k for k in network.validators if k is not absent]
        bitmap, signatures = network.sign(report, signers)
        assert bitmap.bit_count() == network.quorum == 3
        assert network.refusal(report, bitmap, signatures) == ""


def _all_four(network: ContractNetwork, report: Report) -> tuple[list[SigningKey], list[bytes]]:
    members = sorted(network.validators, key=lambda k: k.address)
    return members, [compact_signature(k.sign(network.digest(report))) for k in members]


def test_signatures_are_refused_by_name(network: ContractNetwork) -> None:
    report = network.next_report()
    network.chain.mine()
    _, s = _all_four(network, report)
    stranger = compact_signature(a_key(900).sign(network.digest(report)))
    foreign = compact_signature(a_key(100).sign(Digest(b"\1" * 32)))
    high = s[0][:32] + (ORDER - (int.from_bytes(s[0][32:], "big") & (1 << 255) - 1)).to_bytes(32, "big")
    assert network.refusal(report, 0b0111, s[0] + s[1] + s[2]) == ""
    refusals = {
        "WrongSignatureCount(3)": [
            (0b0011, s[0] + s[1]),
            (0b1111, s[0] + s[1] + s[2] + s[3]),
            (0b0111, s[0] + s[1] + s[2] + b"\0"),
            (0b0011, s[0] + s[1] + s[2]),
            (0b1111, s[0] + s[1] + s[2]),
            (0, b""),
        ],
        "BadBitmap": [(0b10011, s[0] + s[1] + s[2]), (1 << 255 | 3, s[0] + s[1] + s[2])],
        "BadSignature(0)": [
            (0b0111, s[1] + s[0] + s[2]),
            (0b0111, stranger + s[1] + s[2]),
            (0b0111, foreign + s[1] + s[2]),
            (0b0111, high + s[1] + s[2]),
            (0b0111, bytes(64) + s[1] + s[2]),
            (0b0111, b"\xff" * 64 + s[1] + s[2]),
        ],
        "BadSignature(1)": [(0b0111, s[0] + s[0] + s[2]), (0b0111, s[0] + s[1][:63] + bytes([s[1][63] ^ 1]) + s[2])],
        "BadSignature(3)": [(0b1011, s[0] + s[1] + s[2])],
    }
    got = {error: {network.refusal(report, *case) for case in cases} for error, cases in refusals.items()}
    assert got == {error: {error} for error in refusals}


def test_a_signature_for_another_deployment_is_refused(network: ContractNetwork) -> None:
    report = network.next_report()
    network.chain.mine()
    contracts = network.chain.deployment.contracts
    from validator.protocol.codec.report import report_digest

    for chain_id, manager in ((1, contracts.report_manager), (network.chain.chain_id, contracts.node_manager)):
        digest = report_digest(report, chain_id, manager)
        packed = pack_signatures(
            [k.address for k in network.validators], {k.address: k.sign(digest) for k in network.validators}
        )
        assert network.refusal(report, *packed) == "BadSignature(0)"


def test_bytes_behind_the_arguments_are_refused(network: ContractNetwork) -> None:
    from validator.net.chain.abi import interface
    from validator.net.chain.jsonrpc import Request, Reverted
    from validator.net.chain.rpc import Rpc
    from validator.net.chain.values import parse_bytes

    report = network.next_report()
    network.chain.mine()
    data = interface("ReportManager").function("submitReport").encode(network.arguments(report))
    to = "0x" + network.chain.address_of("ReportManager").hex()

    def call(payload: bytes) -> object:
        request = Request("eth_call", ({"to": to, "data": "0x" + payload.hex()}, "latest"), parse_bytes)
        return network.chain.rpc.agree([request])[0]

    assert isinstance(network.chain.rpc, Rpc)
    assert call(data) == b""
    refused = call(data + bytes(32))
    assert isinstance(refused, Reverted)
    assert interface("ReportManager").explain_revert(refused.data) == "WrongCalldataLength"


# --- order ----------------------------------------------------------------------------------------


def test_reports_follow_each_other(network: ContractNetwork) -> None:
    first = network.next_report()
    receipt = network.submit(first)
    assert int(receipt["status"], 16) == 1
    assert network.refusal(first) == "WrongNumber(1)"
    second = network.next_report()
    network.chain.mine()
    assert network.refusal(replace(second, previous_root=Root(b"\7" * 32))).startswith("WrongPreviousRoot(0x0101")
    assert network.refusal(replace(second, first_ms=first.last_ms)) == "WrongSpan"
    network.submit(second)
    kept = network.chain.call("ReportManager", "reportOf", 1)
    assert kept[:2] == (second.bundle_root, second.last_ms)
    assert kept[3:] == (network.sign(second)[0], network.digest(second)[:17])
    assert network.chain.call("ReportManager", "lastReport")[:2] == (True, 1)
    assert network.refusal_of("ReportManager", "reportOf", 2) == "NoSuchReport"


def test_the_last_report_of_an_epoch_hands_over_to_the_next_committee(network: ContractNetwork) -> None:
    digest = Digest(b"\x0d" * 32)
    following = tuple(sorted(a_key(600 + i).address for i in range(7)))
    network.submit(network.next_report(next_committee=following, next_config_digest=digest))
    assert network.chain.call("ReportManager", "committee")[0] == following
    assert network.chain.call("ReportManager", "configDigest")[0] == digest
    report = network.next_report()
    network.chain.mine()
    assert network.refusal(report).startswith("WrongConfigDigest(0x0d0d")
    late = replace(report, config_digest=digest)
    assert network.refusal(late).startswith("WrongSignatureCount(5)")
    network.validators = [a_key(600 + i) for i in range(7)]
    try:
        assert network.refusal(late) == ""
    finally:
        network.validators = [a_key(100 + i) for i in range(4)]


def test_a_raised_config_count_opens_what_is_stuck_and_keeps_the_last_report(network: ContractNetwork) -> None:
    first = network.next_report()
    network.submit(first)
    digest = Digest(b"\x0e" * 32)
    network.chain.raise_config_count([k.address for k in network.validators[:1]], digest)
    assert network.chain.call("ReportManager", "configCount")[0] == 1
    assert network.chain.call("ReportManager", "reportOf", 0)[0] == first.bundle_root
    report = network.next_report(config_digest=digest)
    network.chain.mine()
    bitmap, signature = 1, compact_signature(network.validators[0].sign(network.digest(report)))
    assert network.refusal(report, bitmap, signature) == ""
    assert network.refusal(network.next_report()).startswith("WrongConfigDigest")


@pytest.mark.parametrize(("members", "quorum"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (7, 5), (13, 9), (32, 22)])
def test_every_committee_size_has_its_quorum_and_f_of_zero_is_accepted(
    network: ContractNetwork, members: int, quorum: int
) -> None:
    keys = [a_key(3000 + i) for i in range(members)]
    digest = Digest(b"\x0f" * 32)
    network.chain.raise_config_count([k.address for k in keys], digest)
    assert network.chain.call("ReportManager", "quorum")[0] == quorum
    assert network.chain.call("ReportManager", "committee")[0] == tuple(sorted(k.address for k in keys))
    report = network.next_report(config_digest=digest)
    network.chain.mine()
    network.validators, before = keys, network.validators
    try:
        assert network.refusal(report) == ""
    finally:
        network.validators = before


def test_only_the_owner_sets_committees(network: ContractNetwork) -> None:
    members = ["0x" + k.address.hex() for k in sorted(network.validators, key=lambda k: k.address)]
    digest = Digest(b"\1" * 32)
    owner, stranger = a_key(1), a_key(900)
    for function in ("setCommittee", "announceConfigCount", "raiseConfigCount"):
        assert network.refusal_of("ReportManager", function, members, digest, sender=stranger) == "NotOwner"
    assert network.refusal_of("ReportManager", "setCommittee", members, digest, sender=owner) == "CommitteeAlreadySet"
    many = ["0x" + i.to_bytes(20, "big").hex() for i in range(1, 34)]
    cases = [([], digest), (members[::-1], digest), (members[:1] * 2, digest), (many, digest)]
    for case in cases:
        assert network.refusal_of("ReportManager", "announceConfigCount", *case, sender=owner) == "BadCommittee"
    for same in (CONFIG, NIL):
        refused = network.refusal_of("ReportManager", "announceConfigCount", members, same, sender=owner)
        assert refused == "BadConfigDigest"


# --- digest ---------------------------------------------------------------------------------------


def test_the_contract_computes_the_digest_that_members_sign(network: ContractNetwork) -> None:
    reports = [
        a_report(),
        a_report(streams=(), consumers=(), nodes=(), treasury=0),
        a_report(
            nodes=(NodeLine(1, a_key(1).address, -(1 << 95)),),
            treasury=(1 << 95) + 1_050,
            next_committee=tuple(sorted(a_key(i).address for i in range(1, 33))),
            next_config_digest=Digest(b"\x99" * 32),
        ),
        a_report(
            streams=tuple(StreamLine(i + 1, f"{'ü' * (i % 9)}{i:04}", i * WEI, i) for i in range(60)),
            treasury=1_770 * WEI - 850,
        ),
    ]
    for report in reports:
        said = network.chain.call("ReportManager", "reportDigest", report_values(report))[0]
        assert said == network.digest(report)


VECTORS = json.loads((paths.VECTORS / "report.json").read_text())["reports"]


@pytest.mark.parametrize("vector", VECTORS, ids=[v["name"] for v in VECTORS])
def test_the_contract_agrees_with_the_vectors(network: ContractNetwork, vector: dict[str, Any]) -> None:
    assert network.chain.deployment.contracts.report_manager.hex() == vector["report_manager"]
    assert network.chain.chain_id == vector["chain_id"]
    report = decode_report(bytes.fromhex(vector["canonical"]))
    said = network.chain.call("ReportManager", "reportDigest", report_values(report))[0]
    assert said.hex() == vector["digest"]
