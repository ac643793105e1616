"""What the steps owe to the core and to others: saved before it is said, asked before it is believed, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.builders import a_key
from tests.fakes.small_network import DirectPeers, Member, SmallNetwork
from tests.fakes.world import GENESIS_MS, START_S, WINDOW_MS, WorldChain, WorldSender, WorldStorage, some_parameters
from validator.ports.chain import PreparedTransaction
from validator.ports.peers import Gossip, HeldVotes
from validator.ports.queue import NotYet
from validator.ports.storage import PreparedUpload
from validator.protocol.codec.outcome import decode_observation, decode_outcome, encode_observation, set_root
from validator.protocol.codec.statement import encode_statement, sign_statement, sign_upload
from validator.protocol.consensus.events import GetValue, ProposeValue, Resume
from validator.protocol.consensus.proposal import Verdict, not_yet
from validator.protocol.consensus.window import make_entries
from validator.protocol.model import (
    Address,
    Block,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Outcome,
    Record,
    Root,
    Statement,
    StatementKind,
    UploadAnnouncement,
    VoteQuorum,
)
from validator.steps import advance, catchup, proposals, submit
from validator.steps.chain_watch import compare_blocks
from validator.steps.collect import collect_window
from validator.steps.late import collect_late
from validator.steps.statements import verify_gossip

MakeNetwork = Callable[..., SmallNetwork]


def of_member(network: SmallNetwork, part: object) -> Member:
    return next(m for m in network.members if part in (m.storage, m.sender))


def test_nothing_is_said_or_paid_for_before_it_is_saved(
    a_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = a_network(4)
    network.world.publish(100, b"{}")
    early: list[str] = []
    seen: set[str] = set()
    asked: set[tuple[int, str, str]] = set()

    def require(member: Member, what: str, query: str) -> None:
        if (member.number, what, query) in asked:
            return
        asked.add((member.number, what, query))
        found = member.rows(query)
        seen.add(what)
        if not found:
            early.append(f"{what} of {member.number}")

    def send(self: DirectPeers, member: Address, gossip: Gossip) -> None:
        own = network.by_address[self.own]
        for s in gossip.statements:
            if s.signer == self.own:
                require(own, "statement", f"SELECT 1 FROM journal WHERE bytes = X'{encode_statement(s).hex()}'")
        for upload in gossip.uploads:
            require(own, "upload", f"SELECT 1 FROM uploads WHERE storage_id = X'{upload.storage_id.hex()}'")
        for a in gossip.attestations:
            require(own, "attestation", f"SELECT 1 FROM attestations WHERE signature = X'{a.signature.hex()}'")
        self._ask(member).receive(self.own, gossip)

    true_post, true_send = WorldStorage.post, WorldSender.send

    def post(self: WorldStorage, prepared: PreparedUpload) -> str:
        rows = f"SELECT 1 FROM uploads WHERE storage_id = X'{prepared.storage_id.hex()}'"
        require(of_member(network, self), "payment", rows)
        return true_post(self, prepared)

    def transmit(self: WorldSender, transaction: PreparedTransaction) -> None:
        rows = f"SELECT 1 FROM transactions WHERE hash = X'{transaction.hash.hex()}'"
        require(of_member(network, self), "transaction", rows)
        true_send(self, transaction)

    monkeypatch.setattr(DirectPeers, "send", send)
    monkeypatch.setattr(WorldStorage, "post", post)
    monkeypatch.setattr(WorldSender, "send", transmit)
    network.run_to_final()
    assert early == []
    assert seen == {"statement", "upload", "attestation", "payment", "transaction"}


def test_a_new_process_says_nothing_until_its_peers_have_told_it_its_own_words_or_time_is_up(
    a_network: MakeNetwork,
) -> None:
    network = a_network(4)
    alone = network.members[0]
    for member in network.members[1:]:
        member.away = True
    cut_off_ms = GENESIS_MS + WINDOW_MS + 1_000
    network.run_until(cut_off_ms - GENESIS_MS + 4_500)
    assert alone.rows("SELECT 1 FROM windows WHERE observation IS NOT NULL")
    assert alone.rows("SELECT 1 FROM journal") == []
    network.run(lambda: bool(alone.rows("SELECT 1 FROM journal")), limit_s=10)


def working_copy(member: Member, instance: InstanceId) -> advance._Instance:
    stored = member.store.instances.load_instance(instance)
    assert stored is not None
    return advance._Instance(member.context, stored)


def test_a_new_process_resumes_each_instance_once_and_again_when_it_may_vote_again(a_network: MakeNetwork) -> None:
    network = a_network(4)
    alone = network.members[0]
    for member in network.members[1:]:
        member.away = True
    network.run(lambda: bool(alone.rows("SELECT 1 FROM journal")), limit_s=30)

    def resumes() -> bool:
        return any(isinstance(e, Resume) for e in working_copy(alone, network.window())._first_events())

    assert not resumes()
    alone.restart()
    assert [resumes(), resumes()] == [True, False]
    alone.become(voting_block=lambda: "the disk")
    assert not resumes()
    alone.become(voting_block=lambda: "")
    assert resumes()


def test_an_observation_counts_for_nobody_but_its_observer(a_network: MakeNetwork) -> None:
    network = a_network(4)
    network.world.publish(100, b"{}")
    network.run_to_held(0)
    instance, (first, second, *_) = network.window(), network.members
    copy = working_copy(first, instance)
    (own,) = [s for s in copy._observed() if s.signer == first.address]
    assert copy._load_observation(own) is not None
    borrowed = sign_statement(
        replace(own, signer=second.address, signature=b""), second.key, first.context.identity.signing
    )
    assert copy._load_observation(borrowed) is None
    other = working_copy(first, network.window())
    other.instance = InstanceId(InstanceKind.LATE, 0)
    assert other._load_observation(own) is None


def test_variants_are_ranked_in_the_first_rounds_only(a_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    network = a_network(1)
    network.world.publish(100, b"{}")
    network.run_to_held(0)
    asked: list[bool] = []

    def judge(*_arguments: object, worse_variant: object, **_keywords: object) -> Verdict:
        asked.append(worse_variant is not None)
        return not_yet("")

    monkeypatch.setattr(proposals, "judge_acceptability", judge)
    copy = working_copy(network.members[0], network.window())
    outcome: Outcome = network.members[0].outcome(network.window())
    for round in (0, 1):
        copy._judge_acceptability(outcome, round)
    assert asked == [True, False]  # a committee of one


def test_an_outcome_of_another_instance_is_no_answer(a_network: MakeNetwork) -> None:
    network = a_network(1)
    network.run_to_held(1)
    member = network.members[0]
    certificate = member.store.instances.load_certificate(network.window(1))
    assert certificate is not None
    _, verdict = working_copy(member, network.window(0))._judge_validity(certificate.value)
    assert "another instance" in verdict.reason


def test_what_is_stored_already_enters_no_late_set_though_a_member_observed_it(a_network: MakeNetwork) -> None:
    network = a_network(1)
    stored = network.world.publish(100, b'{"stored":1}')
    fresh = network.world.publish(200, b'{"late":1}', delays={})
    network.run_to_held(1)
    member = network.members[0]
    late = InstanceId(InstanceKind.LATE, 0)
    network.run(lambda: member.store.instances.load_instance(late) is not None, limit_s=20)
    observed: list[Record] = sorted([stored, fresh], key=lambda r: r.order)
    root = set_root(make_entries(observed))
    member.store.sets.save_set(root, observed)
    copy = working_copy(member, late)
    body = member.store.instances.load_body(member.store.windows.load_late_observation(0) or Digest(bytes(32)))
    assert body is not None
    claimed = replace(
        decode_observation(body), set_root=root, count=2, signed_bytes=sum(r.signed_bytes for r in observed)
    )
    digest = member.store.instances.save_body(encode_observation(claimed))
    copy._used_observations = lambda: {member.address: (digest, claimed)}  # type: ignore[method-assign]
    copy._observations = lambda: {member.address: (digest, claimed)}  # type: ignore[method-assign]
    (candidate,) = copy._build(GetValue(0))
    assert isinstance(candidate, ProposeValue)
    proposed = member.store.instances.load_body(candidate.value)
    assert proposed is not None
    assert decode_outcome(proposed).count == 1


def test_a_window_is_observed_when_clock_and_chain_have_passed_its_end(a_network: MakeNetwork) -> None:
    network = a_network(1)
    member, window = network.members[0], network.window()
    network.run_until(500)
    cut_off_ms = GENESIS_MS + WINDOW_MS + 1_000
    head = network.world.head()

    def collected(at_ms: int, head_s: int) -> bool:
        network.clock.at_ms = at_ms
        late = replace(head, timestamp_s=head_s)
        member.store.chain.save_head(late, late)
        try:
            return collect_window(member.context, window.number).name == "collected"
        except NotYet:
            return False

    end_s = (GENESIS_MS + WINDOW_MS) // 1000
    assert not collected(cut_off_ms - 1, end_s)
    assert not collected(cut_off_ms, end_s - 1)
    assert collected(cut_off_ms, end_s)


def test_everything_of_a_window_is_read_at_the_block_before_its_start_minus_the_lag(a_network: MakeNetwork) -> None:
    network = a_network(1)
    network.run_to_held(1)
    member = network.members[0]
    for number in (0, 1):
        at_s = network.window(number).number // 1000 - some_parameters().lag_s
        assert member.outcome(network.window(number)).block_number == at_s - START_S


def test_a_block_and_its_state_are_kept_as_they_were_first_read(
    a_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = a_network(1)
    network.run_to_held(0)
    context = network.members[0].another_context()

    def gone(*_arguments: object) -> ChainState:
        raise AssertionError("read again")

    monkeypatch.setattr(WorldChain, "fetch_block_at", gone)
    monkeypatch.setattr(WorldChain, "fetch_state", gone)
    block = context.cut_points.block_for(network.window().number, some_parameters())
    assert context.cut_points.state_at(block).block == block


def forged(network: SmallNetwork, signer: Member, **changed: object) -> Statement:
    """A statement with a member's name and another key's signature, or with other fields."""
    values = {
        "config_digest": network.committee_digest(),
        "instance": network.window(),
        "round": 0,
        "kind": StatementKind.PREVOTE,
        "value": Digest(b"\x05" * 32),
        "valid_round": -1,
        "signer": signer.address,
        "signature": b"",
    }
    return Statement(**{**values, **changed})  # type: ignore[arg-type]


def test_of_what_a_peer_answers_only_genuine_words_on_the_very_instance_are_taken(a_network: MakeNetwork) -> None:
    network = a_network(4)
    network.run_until(500)
    member, other = network.members[:2]
    signing, config = member.context.identity.signing, member.context.cut_points.epoch_config(0)
    genuine = sign_statement(forged(network, other), other.key, signing)
    lie = replace(genuine, signature=a_key(5).sign(Digest(b"\x01" * 32)))
    foreign = sign_statement(forged(network, other, config_digest=Digest(b"\x06" * 32)), other.key, signing)
    elsewhere = sign_statement(forged(network, other, instance=network.window(1)), other.key, signing)
    told = Gossip(statements=(lie, foreign, elsewhere, genuine))
    statements, _ = verify_gossip(member.context, config, told, network.window())
    assert statements == [genuine]


def test_a_quorum_that_a_peer_answers_is_verified(a_network: MakeNetwork) -> None:
    network = a_network(4)
    network.run_to_held(0)
    member = network.members[0]
    certificate = member.store.instances.load_certificate(network.window())
    assert certificate is not None
    config = member.context.cut_points.epoch_config(0)
    few = replace(certificate, signatures=certificate.signatures[:2])
    other = replace(certificate, config_digest=Digest(b"\x06" * 32))
    _, quorums = verify_gossip(member.context, config, Gossip(quorums=(few, other, certificate)), network.window())
    assert quorums == [certificate]


LIES = ["digest", "stranger", "signature", "bundle", "root", "wallet", "header", "tags", "nothing"]


@pytest.mark.parametrize("lie", LIES)
def test_an_announcement_is_kept_only_if_all_of_it_is_a_members_and_this_bundles(
    a_network: MakeNetwork, lie: str
) -> None:
    network = a_network(1)
    network.world.publish(100, b"{}")
    (member,) = network.members
    network.run(lambda: bool(member.store.bundles.load_announced(0)), limit_s=60)
    (heard,) = member.store.bundles.load_announced(0)
    with member.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM announcements")
    (path,) = (member.folder / "bundles").glob("*.parquet")
    tags = member.storage.read_header(heard.announcement.storage_id, heard.announcement.header).tags
    other = WorldStorage(network.world, b"nobody's wallet").prepare(path, tags)
    untagged = member.storage.prepare(path, tags[:-1])

    def about(prepared: PreparedUpload) -> dict[str, object]:
        return {"storage_id": prepared.storage_id, "owner": prepared.owner, "header": prepared.header.encode()}

    key = a_key(12_345) if lie == "stranger" else member.key
    changes: dict[str, dict[str, object]] = {
        "digest": {"config_digest": Digest(b"\x09" * 32)},
        "stranger": {"signer": key.address},
        "bundle": {"number": 7},
        "root": {"bundle_root": Root(b"\x09" * 32)},
        "wallet": about(other),
        "header": {**about(other), "owner": heard.announcement.owner},
        "tags": about(untagged),
    }
    announcement: UploadAnnouncement = replace(heard.announcement, **changes.get(lie, {}))  # type: ignore[arg-type]
    announcement = sign_upload(announcement, key, member.context.identity.signing)
    if lie == "signature":
        announcement = replace(announcement, signature=a_key(5).sign(Digest(b"\x01" * 32)))
    member.service.receive(member.address, Gossip(uploads=(announcement,)))
    assert bool(member.store.bundles.load_announced(0)) is (lie == "nothing")


def test_votes_are_told_under_the_config_they_were_cast_for(a_network: MakeNetwork) -> None:
    network = a_network(4)
    network.run_to_held(0)
    service = network.members[0].service
    asked = HeldVotes(network.committee_digest(), network.window(), ())
    assert service.missing(network.members[1].address, asked).quorums
    foreign = replace(asked, config_digest=Digest(b"\x06" * 32))
    assert service.missing(network.members[1].address, foreign) == Gossip()


def forget_late_sets(member: Member) -> None:
    with member.database.write() as connection:
        connection.exec_driver_sql("UPDATE bundles SET late_observation = NULL")
        connection.exec_driver_sql("DELETE FROM rounds WHERE instance_kind = 2")


def test_a_late_set_waits_for_the_one_before(a_network: MakeNetwork) -> None:
    network = a_network(1, parameters=[some_parameters(epoch_windows=4)])
    network.run_to_final(2)
    member = network.members[0]
    forget_late_sets(member)
    with pytest.raises(NotYet, match="late:0"):
        collect_late(member.context, 1)
    assert collect_late(member.context, 0).name == "collected"


def test_a_late_set_waits_for_pulls_at_the_horizon_that_are_due(a_network: MakeNetwork) -> None:
    network = a_network(1)
    network.run_to_final()
    member = network.members[0]
    forget_late_sets(member)
    start_ms = network.window().number
    due_ms = start_ms + WINDOW_MS + some_parameters().horizon_ms
    member.store.due.schedule("window.collect.horizon", str(start_ms), due_ms)
    network.clock.at_ms = due_ms
    with pytest.raises(NotYet, match="horizon"):
        collect_late(member.context, 0)
    network.clock.at_ms = due_ms - 1  # not due yet: it is not waited for
    assert collect_late(member.context, 0).name == "collected"


def test_a_report_is_final_when_its_block_is(a_network: MakeNetwork) -> None:
    network = a_network(1)
    network.world.publish(100, b"{}")
    member = network.members[0]
    network.run(lambda: 0 in network.world.accepted, limit_s=60)
    accepted = network.world.accepted[0]
    block: Block = network.world.head()
    member.store.chain.save_head(
        replace(block, number=accepted.block_number + 5), replace(block, number=accepted.block_number - 1)
    )
    assert submit.watch(member.context, 0).name == "not yet"
    member.store.chain.save_head(
        replace(block, number=accepted.block_number + 5), replace(block, number=accepted.block_number)
    )
    assert submit.watch(member.context, 0).name == "final"


LIES_OF_CERTIFICATES = ["prevotes", "config", "body", "few", "instance", "nothing"]


@pytest.mark.parametrize("lie", LIES_OF_CERTIFICATES)
def test_a_certificate_that_a_peer_gives_is_a_quorum_of_precommits_for_its_outcome(
    a_network: MakeNetwork, lie: str
) -> None:
    network = a_network(4)
    network.run_to_held(0)
    holder, taker = network.members[:2]
    instance = network.window()
    genuine = holder.store.instances.load_certificate(instance)
    assert genuine is not None
    body = holder.store.instances.load_body(genuine.value)
    assert body is not None
    kind = StatementKind.PREVOTE if lie == "prevotes" else StatementKind.PRECOMMIT
    config_digest = Digest(b"\x06" * 32) if lie == "config" else genuine.config_digest
    value = Digest(b"\x07" * 32) if lie == "body" else genuine.value
    said = [
        sign_statement(
            forged(network, m, config_digest=config_digest, kind=kind, value=value),
            m.key,
            holder.context.identity.signing,
        )
        for m in network.members[: 2 if lie == "few" else 3]
    ]
    votes = VoteQuorum(kind, config_digest, instance, 0, value, tuple(sorted((s.signer, s.signature) for s in said)))
    asked = network.window(1) if lie == "instance" else instance
    assert catchup._accept(taker.context, holder.address, asked, body, votes) is (lie == "nothing")


def test_below_a_replaced_block_others_are_looked_for_at_once(a_network: MakeNetwork) -> None:
    network = a_network(1)
    network.run_until(0)
    member = network.members[0]
    for i in range(40):
        block = network.world.block(GENESIS_MS // 1000 + i)
        member.store.chain.save_block(block.timestamp_s, replace(block, hash=Digest(bytes([i + 1]) * 32)))
    network.clock.at_ms += 200_000
    assert compare_blocks(member.context) == 40
