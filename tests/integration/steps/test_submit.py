"""The transaction that carries a report: sent once, replaced when stuck, also after a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.web3signer import web3signer
from tests.fakes.world import GENESIS_MS, REPORT_GAS, WorldChain
from validator.net.signer.source import open_signer
from validator.ports.queue import Task
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import TransientError
from validator.protocol.model import Digest

MakeNetwork = Callable[..., SmallNetwork]
SENDING, MARKING = "WorldSender.send()", "SqlStore.reports.save_report_state('submitted',)"


@pytest.mark.parametrize("killed_before", ["", SENDING, MARKING])
def test_a_transaction_that_stays_pending_is_replaced_with_a_higher_fee(
    a_network: MakeNetwork, killed_before: str
) -> None:
    network = a_network()
    network.world.publish(100, b'{"i":1}')
    member = network.members[0]
    member.sender.stuck.add(1)
    killed: list[str] = []

    def kill_at(_member: Member, task: str, _key: str, call: str) -> bool:
        if task == "report.submit" and call == killed_before and not killed:
            killed.append(call)
            return True
        return False

    network.kill_at = kill_at
    network.run_to_final(limit_s=200)
    assert killed == ([killed_before] if killed_before else [])
    transactions = member.rows("SELECT nonce, max_fee_per_gas FROM transactions ORDER BY id")
    assert len(transactions) == 2
    assert transactions[0][0] == transactions[1][0]
    assert int(transactions[0][1]) < int(transactions[1][1])
    assert [success for success, _ in network.world.sent.values()] == [True]
    assert len(network.world.accepted) == 1


def test_of_two_that_sent_one_report_is_accepted_and_both_end(a_network: MakeNetwork) -> None:
    """A transmitter whose turn comes while the first one's transaction hangs."""
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    for member in network.members:
        member.sender.stuck.add(1)
    network.run_to_final(limit_s=200)
    assert [success for success, _ in network.world.sent.values()].count(True) == 1
    assert len(network.world.accepted) == 1


def test_everybody_knows_which_transaction_carried_a_report_and_its_gas(a_network: MakeNetwork) -> None:
    """Also who has sent none."""
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    network.run_to_final(limit_s=200)
    (accepted,) = network.world.accepted.values()
    assert [len(member.rows("SELECT 1 FROM transactions")) for member in network.members].count(0) == 3
    for member in network.members:
        known = member.rows("SELECT \"transaction\", gas_used FROM reports WHERE state = 'final'")
        assert known == [(accepted.transaction, REPORT_GAS)]


def test_a_report_is_final_although_no_source_has_the_receipt(
    a_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: WorldChain, _transaction: Digest) -> int:
        raise TransientError("no source answers")

    monkeypatch.setattr(WorldChain, "fetch_gas_used", fail)
    network = a_network(1)
    network.world.publish(100, b'{"i":1}')
    network.run_to_final(limit_s=200)
    (accepted,) = network.world.accepted.values()
    known = network.members[0].rows('SELECT state, "transaction", gas_used FROM reports')
    assert known == [("final", accepted.transaction, None)]


def test_a_report_whose_transaction_reverted_is_called_so_and_sent_anew(a_network: MakeNetwork) -> None:
    network = a_network()
    network.world.publish(100, b'{"i":1}')
    member = network.members[0]
    member.sender.reverting = 1
    seen: list[str] = []

    def kill_at(_member: Member, _task: str, _key: str, call: str) -> bool:
        if call.startswith("SqlStore.reports.save_report_state("):
            seen.append(call.partition("'")[2].partition("'")[0])
        return False

    network.kill_at = kill_at
    network.run_to_final(limit_s=200)
    assert seen == ["attested", "submitted", "reverted", "submitted"]
    assert [success for success, _ in network.world.sent.values()] == [False, True]
    assert member.rows("SELECT state FROM reports") == [("final",)]


class CountingSigner:
    """A voting key that notes what it is given."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self.address = key.address
        self.signed: Counter[bytes] = Counter()

    def sign_payload(self, payload: bytes) -> bytes:
        self.signed[payload] += 1
        return self._key.sign_payload(payload)


def test_nothing_is_signed_twice_though_it_is_told_again_and_again(a_network: MakeNetwork) -> None:
    network = a_network()
    network.world.publish(100, b'{"i":1}')
    member = network.members[0]
    signer = CountingSigner(member.key)
    member.become(voting_key=signer)
    member.sender.stuck.add(1)
    network.run(lambda: [r.name for r in network.log if r.task == "report.attest"].count("attested") > 3, 100)
    assert signer.signed
    assert set(signer.signed.values()) == {1}


def test_a_validator_whose_key_lies_in_a_server_goes_on_where_it_stood_when_the_server_is_back(
    a_network: MakeNetwork,
) -> None:
    network = a_network(4)
    member = network.members[0]
    with web3signer(member.key) as server:
        key = open_signer(server.url(member.key), "LOGSTORE_VOTING_KEY", ask_password=str)
        member.become(voting_key=key)
        network.world.publish(100, b'{"i":1}')
        server.instead = lambda _path: (503, b"")
        network.run(lambda: network.clock.now_ms() > GENESIS_MS + 5_000)
        assert any(r.name == "not yet" and "HTTP 503" in r.detail for r in network.log if r.member == member.number)
        server.instead = lambda _path: None
        network.run_to_final(limit_s=300)
        assert any("sign" in path for _, path in server.asked)
    own = f"SELECT DISTINCT statement_kind FROM statements WHERE signer = x'{member.address.hex()}'"
    assert len(network.members[1].rows(own)) > 1


def test_an_observer_schedules_no_submission(a_network: MakeNetwork) -> None:
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    observer = network.members[3]
    observer.become(may_vote=False, voting_key=None)

    def attested(member: Member) -> bool:
        ran = (r for r in network.log if r.task == "report.attest" and r.member == member.number)
        return any(r.name == "attested" for r in ran)

    network.run(lambda: attested(observer) and attested(network.members[0]), 100)
    assert network.members[0].store.due.pending(Task.REPORT_SUBMIT)
    assert not observer.store.due.pending(Task.REPORT_SUBMIT)
    network.run_to_final(limit_s=200)
    assert observer.rows("SELECT state FROM bundles WHERE number = 0") == [("final",)]


def test_an_upload_is_shown_as_seeded_confirmed_and_verified_in_turn(a_network: MakeNetwork) -> None:
    network = a_network()
    network.world.publish(100, b'{"i":1}')
    member = network.members[0]
    for state in ("seeded", "confirmed", "verified"):
        network.run(lambda state=state: member.rows("SELECT state FROM uploads") == [(state,)])  # type: ignore[misc]
    assert not member.is_final()
    network.run_to_final()
    assert member.rows("SELECT state FROM uploads") == [("verified",)]
