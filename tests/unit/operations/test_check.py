"""Small judgements of ``check``, and that an error becomes a line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.builders import a_key
from tests.fakes.world import some_network
from validator.operations import check_chain
from validator.operations.check_machine import check_keys, file_system_of
from validator.operations.check_network import (
    BLOCKS_BEHIND,
    CLOCK_MS,
    compare_handshakes,
    judge_named_wallet,
)
from validator.operations.evidence import describe_evidence, evidence_data
from validator.operations.findings import Finding, Level, guarded, ok
from validator.ports.peers import Handshake
from validator.ports.stored import CutPoint, Reorganisation
from validator.protocol.codec.config import encode_config
from validator.protocol.errors import TransientError
from validator.protocol.model import Address, Block, Digest, InstanceId, InstanceKind, Statement, StatementKind
from validator.protocol.parameters import Config, Contracts, ParameterSet, format_network
from validator.settings import Settings
from validator.store.statements import Evidence
from validator.wiring import Node, NoTasks

CONTRACTS = Contracts(*(Address(bytes([0xC0 + i]) * 20) for i in range(6)))
CONFIG = Config(
    137, Digest(b"\x01" * 32), CONTRACTS, ParameterSet(first_epoch=0, epoch_windows=10), 0, 0, (Address(b"\x02" * 20),)
)
NOW_MS = 1_700_000_000_000
OWN = Handshake(Address(b"\x02" * 20), (1,), (encode_config(CONFIG),), NOW_MS, 100)


def compare(**changed: Any) -> list[Finding]:
    return list(compare_handshakes("peer", OWN, dataclasses.replace(OWN, **changed), NOW_MS))


def test_a_peer_like_us_is_one_good_line() -> None:
    assert [finding.level for finding in compare()] == [Level.OK]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (dataclasses.replace(CONFIG, chain_id=1), "chain_id"),
        (dataclasses.replace(CONFIG, committee=()), "committee"),
        (dataclasses.replace(CONFIG, config_count=1), "config_count"),
        (dataclasses.replace(CONFIG, parameters=dataclasses.replace(CONFIG.parameters, rent=7)), "parameters.rent"),
    ],
)
def test_the_field_that_differs_is_named(config: Config, field: str) -> None:
    assert compare(configs=(encode_config(config),)) == [
        Finding(Level.FAIL, "peer", f"config of epoch 0 differs in {field}")
    ]


def test_a_config_that_does_not_parse_is_a_failure_of_the_peer() -> None:
    (finding,) = compare(configs=(b"\x80",))
    assert (finding.level, finding.text.split(":")[0]) == (Level.FAIL, "config 0 does not parse")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"now_ms": NOW_MS + CLOCK_MS + 1_000}, "6.0 s ahead of ours"),
        ({"now_ms": NOW_MS - CLOCK_MS - 1_000}, "6.0 s behind ours"),
        ({"head": 100 + BLOCKS_BEHIND + 1}, "31 ahead of ours"),
        ({"head": 100 - BLOCKS_BEHIND - 1}, "31 behind ours"),
    ],
)
def test_clocks_and_chains_that_are_apart_are_warned_of(changed: dict[str, int], words: str) -> None:
    (finding,) = compare(**changed)
    assert finding.level is Level.WARN
    assert words in finding.text


ME, OTHER = Address(b"\x02" * 20), Address(b"\x03" * 20)
WALLET = bytes(31) + b"\x01"


@pytest.mark.parametrize(
    ("own", "named", "words"),
    [
        (WALLET, {OTHER: WALLET}, "no wallet is named on chain"),
        (WALLET, {ME: bytes(32)}, '{"arweave": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}'),
        (WALLET, {ME: WALLET, OTHER: WALLET}, f"0x{OTHER.hex()} names the same wallet"),
    ],
)
def test_a_member_whose_turns_to_upload_pass_is_told_why(own: bytes, named: dict[Address, bytes], words: str) -> None:
    finding = judge_named_wallet(ME, own, named)
    assert finding.level is Level.WARN
    assert words in finding.text
    assert "our turns to upload pass" in finding.text


def test_a_member_that_names_its_wallet_alone_is_one_good_line() -> None:
    for own in (WALLET, None):
        assert judge_named_wallet(ME, own, {ME: WALLET, OTHER: bytes(32)}).level is Level.OK


def test_a_peer_without_a_common_version_is_a_failure() -> None:
    (finding,) = compare(versions=(2, 3))
    assert finding == Finding(Level.FAIL, "peer", "speaks protocol versions 2, 3, we none of them")


def test_what_cannot_be_checked_is_a_failure_with_its_reason_and_keeps_what_was_found() -> None:
    def check() -> Iterator[Finding]:
        yield ok("a", "fine")
        raise TransientError("no answer")

    assert list(guarded("a", check)) == [ok("a", "fine"), Finding(Level.FAIL, "a", "no answer")]


def test_the_innermost_mount_tells_the_file_system() -> None:
    mounts = "/dev/a / ext4 rw 0 0\nhost:/x /data nfs4 rw 0 0\n/dev/b /data/in\\040ner xfs rw 0 0\nbroken\n"
    assert file_system_of(Path("/data/validator.sqlite"), mounts) == "nfs4"
    assert file_system_of(Path("/data/in ner/validator.sqlite"), mounts) == "xfs"
    assert file_system_of(Path("/database"), mounts) == "ext4"
    assert file_system_of(Path("/x"), "") == ""


def test_keys_are_told_apart_and_a_readable_or_doubled_one_is_not_passed_over(tmp_path: Path) -> None:
    for name, mode in (("voting", 0o600), ("gas", 0o644), ("query", 0o600)):
        (tmp_path / name).write_text("0x" + "11" * 32)
        (tmp_path / name).chmod(mode)
    (tmp_path / "network.toml").write_text(format_network(some_network()))
    settings = Settings(
        network_file=tmp_path / "network.toml",
        rpc_urls=("http://127.0.0.1:1",),
        gateway_urls=("http://127.0.0.1:1",),
        voting_key_file=tmp_path / "voting",
        gas_key_file=tmp_path / "gas",
        query_key_file=tmp_path / "query",
    )
    found = {finding.name: finding for finding in check_keys(Node(settings, NoTasks()))}
    assert found["voting key"].level is Level.OK
    assert (found["gas key"].level, "readable by others" in found["gas key"].text) == (Level.FAIL, True)
    assert (found["query key"].level, "is the voting key too" in found["query key"].text) == (Level.WARN, True)
    assert found["wallet"].level is Level.WARN
    assert not any("11" * 16 in finding.text for finding in found.values())


def test_no_evidence_is_an_empty_list() -> None:
    assert describe_evidence([]) == []
    assert evidence_data([]) == []


def test_evidence_names_the_two_values_whole_as_they_are_pasted() -> None:
    instance = InstanceId(InstanceKind.WINDOW, 1_000)
    one, other = (
        Statement(StatementKind.PREVOTE, Digest(bytes(32)), instance, 3, Digest(value * 32), a_key(1).address)
        for value in (b"\x11", b"\x22")
    )
    (line,) = describe_evidence([Evidence(one, other, 0)])
    assert f"0x{a_key(1).address.hex()}  window:1000 round 3 prevote: 0x{'11' * 32} and 0x{'22' * 32}" in line


def a_cut_point(number: int) -> CutPoint:
    return CutPoint(1_000 + number, Block(number, Digest(bytes([number]) * 32), 1_000 + number))


def blocks_findings(found: list[Reorganisation], *, present: bytes = b"\x07") -> list[Finding]:
    """Of a database whose newest cut point is block 7, where the chain's block 7 has this hash."""
    chain = SimpleNamespace(
        load_reorganisations=lambda _since_ms: found, load_cut_points=lambda *_arguments: [a_cut_point(7)]
    )
    reader = SimpleNamespace(fetch_blocks=lambda numbers: [Block(n, Digest(present * 32), 1) for n in numbers])
    return list(check_chain.check_blocks(SimpleNamespace(store=SimpleNamespace(chain=chain)), reader))  # type: ignore[arg-type]


def test_cut_points_that_stand_are_fine() -> None:
    assert [finding.level for finding in blocks_findings([])] == [Level.OK]


def test_a_cut_point_that_the_chain_has_replaced_is_named_with_what_was_signed_by_it() -> None:
    found = Reorganisation(1_006, 6, Digest(b"\x01" * 32), Digest(b"\x02" * 32), 12, "window:4000", 9)
    (warning,) = blocks_findings([found])
    assert warning.level is Level.WARN
    for word in ("12 blocks", "block 6", "01" * 32, "02" * 32, "window:4000"):
        assert word in warning.text
    (failure,) = blocks_findings([], present=b"\x08")
    assert failure.level is Level.FAIL
    assert "block 7" in failure.text
