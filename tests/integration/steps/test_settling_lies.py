"""One lying member, or one that dies, never stops a bundle or its report, and never splits honest members."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_key, flip_s
from tests.fakes import small_network
from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import a_header, some_parameters
from validator.ports.peers import Attestation, Gossip
from validator.ports.queue import StepResult, Task
from validator.ports.storage import ReaderFailed, StorageState, StorageStatus
from validator.ports.stored import StoredBundle
from validator.protocol.codec.bundle import bundle_tags
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.manifest import decode_manifest
from validator.protocol.codec.report import decode_report, encode_report
from validator.protocol.codec.statement import sign_statement, sign_upload
from validator.protocol.hashing import hash_body, order_committee
from validator.protocol.model import Address, Certified, Node, Root, Statement, StorageId, UploadAnnouncement
from validator.steps.attestations import packed_signatures, valid_signatures
from validator.steps.context import Context
from validator.steps.cut_points import bind_wallets
from validator.steps.peer_service import LocalPeerService
from validator.steps.pipeline import Stage
from validator.steps.uploads import announced_uploads, tags_of, upload_subject
from validator.store.bundle_program import bundle_records

MakeNetwork = Callable[..., SmallNetwork]


def say(member: Member, change: Callable[[Gossip], Gossip]) -> None:
    """What the member tells others is changed on its way."""
    peers = member.context.peers._port  # type: ignore[attr-defined]
    tell = peers.broadcast

    def broadcast(gossip: Gossip, members: Iterable[Address]) -> object:
        return tell(change(gossip), members)

    peers.broadcast = broadcast


def never_run(monkeypatch: pytest.MonkeyPatch, member: Member, *tasks: Task) -> None:
    """The member leaves these tasks to others."""
    for task in tasks:
        stage = small_network.STAGES[task]

        def skip(context: Context, key: str, *rest: int, stage: Stage = stage) -> StepResult:
            if context.identity.address == member.address:
                return StepResult("skipped", "left to others")
            return stage.run(context, key, *rest)

        monkeypatch.setitem(small_network.STAGES, task, replace(stage, run=skip))


# --- attestations -----------------------------------------------------------------------------------


def test_an_attestation_that_the_contract_refuses_stops_nobody_elses_report(
    a_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    liar = network.members[0]
    never_run(monkeypatch, liar, Task.REPORT_SUBMIT)
    say(
        liar,
        lambda g: replace(g, attestations=tuple(replace(a, signature=flip_s(a.signature)) for a in g.attestations)),
    )
    network.run_to_final()
    for member in network.members[1:]:
        found = member.rows("SELECT signer, signature FROM attestations")
        assert {signer for signer, _ in found} == {m.address for m in network.members[1:]}


def test_what_an_older_release_kept_is_not_packed(a_network: MakeNetwork) -> None:
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    member = network.members[1]
    network.run(lambda: bool(member.store.reports.load_reports(0)))
    (draft,) = member.store.reports.load_reports(0)
    other = network.members[0]
    old = Attestation(0, draft.digest, other.address, flip_s(other.key.sign(draft.digest)))
    with member.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM attestations")
    member.store.reports.save_attestation(old)
    config = member.context.cut_points.epoch_config(0)
    assert valid_signatures(member.context, config, draft) == {}
    network.run_to_final()
    signatures = valid_signatures(member.context, config, draft)
    assert set(signatures) == {m.address for m in network.members}, "it gives way to the one that holds"
    assert packed_signatures(config, signatures)


def test_a_flood_of_signatures_shown_for_a_report_keeps_no_honest_one_out(a_network: MakeNetwork) -> None:
    """More than are kept of a signer, all genuine: what an honest member signed elsewhere is shown as its own here."""
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    liar, *honest = network.members
    liar.idle = True
    network.run(lambda: all(m.store.bundles.load_bundle(0) is not None for m in honest))
    for n in range(100):
        digest = hash_body(b"something else %d" % n)
        shown = [Attestation(0, digest, m.address, m.key.sign(digest)) for m in network.members]
        for victim in honest:
            victim.service.receive(liar.address, Gossip(attestations=tuple(shown)))
        network.clock.at_ms += 30
    network.run_to_final()
    for member in honest:
        assert member.rows("SELECT count(*) FROM attestations")[0][0] <= 4 * 65


def test_an_attestation_of_a_stranger_or_for_a_bundle_that_is_not_there_is_not_kept(a_network: MakeNetwork) -> None:
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    member, other = network.members[0], network.members[1]
    network.run(lambda: member.store.bundles.load_bundle(0) is not None)
    digest = hash_body(b"any")
    far = Attestation(1 << 40, digest, other.address, other.key.sign(digest))
    strange = Attestation(0, digest, a_key(1).address, a_key(1).sign(digest))
    member.service.receive(other.address, Gossip(attestations=(far, strange)))
    assert member.rows("SELECT count(*) FROM attestations") == [(0,)]


# --- the committee ----------------------------------------------------------------------------------


def two_epochs(a_network: MakeNetwork, nodes: Callable[[SmallNetwork], tuple[Node, ...]]) -> SmallNetwork:
    """Four validators, an epoch of one bundle and one more; at the second's block others are staked."""
    network = a_network(4, parameters=(some_parameters(last=False), some_parameters(first_epoch=1)))
    epoch = network.network.epoch(1)
    assert epoch is not None
    block = network.world.block(epoch.start_ms // 1000 - epoch.parameters.lag_s)
    network.world.nodes_from[block.number] = nodes(network)
    network.world.publish(100, b"{}")
    return network


def test_strangers_beyond_the_limit_of_a_committee_stop_no_rotation(a_network: MakeNetwork) -> None:
    strangers = [Node(a_key(40_000 + i).address, 10**17 + i, None, f"https://s{i}.example") for i in range(200)]
    network = two_epochs(a_network, lambda n: (*n.world.nodes, *strangers))
    network.run_to_final()
    following = network.world.reports[0].next_committee
    richest = [node.address for node in sorted(strangers, key=lambda n: -n.stake)[:28]]
    assert following == tuple(sorted([*network.world.members, *richest]))
    report = network.world.reports[0]
    assert decode_report(encode_report(report)) == report
    served = network.members[0].service.members()
    assert set(served) <= set(following), "who is no member is not served"


def test_a_committee_stays_where_nobody_offers_itself(a_network: MakeNetwork) -> None:
    network = two_epochs(a_network, lambda n: tuple(replace(node, validator_url=None) for node in n.world.nodes))
    network.run_to_final()
    assert network.world.reports[0].next_committee == network.world.members
    assert network.world.reports[0].next_config_digest == network.members[0].context.cut_points.epoch_config(1).digest
    urls = {node.address: node.validator_url for node in network.world.nodes if node.validator_url}
    assert network.members[0].context.cut_points.epoch_config(1).urls == urls, "members are reached where they were"


# --- uploads ----------------------------------------------------------------------------------------


def turns(network: SmallNetwork) -> list[Member]:
    """Members in the order in which they may upload the first bundle."""
    order = order_committee(network.world.members, network.committee_digest(), upload_subject(0))
    return [network.by_address[address] for address in order]


def sealed(network: SmallNetwork, member: Member) -> StoredBundle:
    """The first bundle, once the member has sealed it."""

    def is_sealed() -> bool:
        bundle = member.store.bundles.load_bundle(0)
        return bundle is not None and bundle.root is not None

    network.run(is_sealed)
    bundle = member.store.bundles.load_bundle(0)
    assert bundle is not None
    return bundle


def a_lie(liar: Member, bundle: StoredBundle, number: int = 1, **changed: Any) -> UploadAnnouncement:
    """The liar announces, with all that belongs to it, an upload of a file that nobody has and that it never posts."""
    assert bundle.root is not None
    tags = bundle_tags(
        decode_manifest(bundle.manifest).header, bundle.root, liar.context.identity.signing, bundle.end_ms
    )
    header = a_header(liar.storage.owner, tags, 1_000, hash_body(b"nothing"), number).encode()
    upload = UploadAnnouncement(
        bundle.config_digest,
        bundle.number,
        bundle.root,
        StorageId(hash_body(header)),
        liar.storage.owner,
        liar.address,
        header=header,
    )
    return sign_upload(replace(upload, **changed), liar.key, liar.context.identity.signing)


def tell(network: SmallNetwork, liar: Member, *lies: UploadAnnouncement) -> None:
    for member in network.members:
        if member is not liar:
            member.service.receive(liar.address, Gossip(uploads=lies))


def a_silent_first(a_network: MakeNetwork) -> tuple[SmallNetwork, Member]:
    """Four validators with a bundle that all have sealed; the one whose turn it is first does nothing of itself."""
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    network.run_until(100)
    first = turns(network)[0]
    sealed(network, first)
    first.idle = True
    for member in network.members:
        if member is not first:
            sealed(network, member)
    return network, first


def test_an_upload_that_does_not_exist_is_waited_for_one_stage(a_network: MakeNetwork) -> None:
    network, liar = a_silent_first(a_network)
    bundle = liar.store.bundles.load_bundle(0)
    assert bundle is not None
    tell(network, liar, a_lie(liar, bundle))
    network.run_to_final(limit_s=40)
    assert len(network.world.paid()) == 1
    assert network.world.reports[0].uploader == turns(network)[1].address


def test_who_announces_again_and_again_is_waited_for_once(a_network: MakeNetwork) -> None:
    network, liar = a_silent_first(a_network)
    bundle = liar.store.bundles.load_bundle(0)
    assert bundle is not None
    for number in range(8):
        tell(network, liar, a_lie(liar, bundle, number))
        end_ms = network.clock.now_ms() + 2_500
        network.run(lambda end_ms=end_ms: network.clock.now_ms() >= end_ms)  # type: ignore[misc]
    network.run_to_final(limit_s=20)
    assert len(network.world.paid()) == 1


def test_nobody_pays_while_it_cannot_tell_what_became_of_an_announced_upload(a_network: MakeNetwork) -> None:
    network, liar = a_silent_first(a_network)
    bundle = liar.store.bundles.load_bundle(0)
    assert bundle is not None
    lie = a_lie(liar, bundle)
    for member in network.members:
        member.storage.shown[lie.storage_id] = StorageStatus(StorageState.UNKNOWN)
    tell(network, liar, lie)
    end_ms = network.clock.now_ms() + 90_000
    network.run(lambda: network.clock.now_ms() >= end_ms)
    assert network.world.paid() == []
    for member in network.members:
        member.storage.shown.clear()
    network.run_to_final(limit_s=20)
    assert len(network.world.paid()) == 1


@pytest.mark.parametrize("call", ["WorldStorage.post(", "WorldStorage.seed("])
def test_what_a_dead_uploader_announced_is_completed_by_others_and_paid_for_once(
    a_network: MakeNetwork, call: str
) -> None:
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    dead: list[Member] = []

    def die(member: Member, entry: object) -> None:
        member.away = True
        dead.append(member)

    network.kill_at = lambda m, task, key, c: task == "bundle.upload" and not dead and c.startswith(call)
    network.on_killed = die
    network.run(lambda: bool(dead))
    network.run_to_final(limit_s=40)
    assert len(network.world.paid()) == 1
    assert network.world.reports[0].uploader == dead[0].address


def test_a_file_with_other_certificates_is_made_again_to_complete_its_upload(a_network: MakeNetwork) -> None:
    """Whose quorum came together from other votes has sealed another file; its announcement says from which."""
    network, dead = a_silent_first(a_network)
    bundle = dead.store.bundles.load_bundle(0)
    assert bundle is not None
    manifest = decode_manifest(bundle.manifest)

    def certify(certified: Certified) -> Certified:
        votes = certified.certificate
        named = {signer for signer, _ in votes.signatures}
        other = next(m for m in network.members if m.address not in named)
        statement = Statement(votes.kind, votes.config_digest, votes.instance, votes.round, votes.value, other.address)
        signed = sign_statement(statement, other.key, dead.context.identity.signing)
        chosen = sorted([*votes.signatures[1:], (other.address, signed.signature)])
        return replace(certified, certificate=replace(votes, signatures=tuple(chosen)))

    other = replace(manifest, windows=tuple(certify(c) for c in manifest.windows), late=certify(manifest.late))
    path = dead.folder / "another.parquet"
    write_bundle(path, other, bundle_records(other, dead.context.store.sets.iterate))
    assert path.read_bytes() != Path(bundle.path).read_bytes()
    prepared = dead.storage.prepare(path, tags_of(dead.context, bundle))
    certificates = tuple(c.certificate for c in (*other.windows, other.late))
    fields: dict[str, Any] = {"storage_id": prepared.storage_id, "header": prepared.header.encode()}
    tell(network, dead, a_lie(dead, bundle, certificates=certificates, **fields))
    network.run_to_final(limit_s=40)
    assert network.world.paid() == [prepared.storage_id]
    assert network.world.reports[0].uploader == dead.address


def test_nobody_announces_anothers_upload_as_its_own(a_network: MakeNetwork) -> None:
    network, uploader = a_silent_first(a_network)
    bundle = uploader.store.bundles.load_bundle(0)
    assert bundle is not None
    liar, *honest = [m for m in network.members if m is not uploader]
    prepared = uploader.storage.prepare(Path(bundle.path), tags_of(uploader.context, bundle))
    header = prepared.header.encode()
    refused: list[str] = []
    for member in honest:
        member.service = LocalPeerService(member.context, lambda what, reason: refused.append(f"{what}: {reason}"))
    stolen: dict[str, Any] = {"storage_id": prepared.storage_id, "header": header}
    tell(
        network,
        liar,
        a_lie(liar, bundle, **stolen, owner=uploader.storage.owner),
        a_lie(liar, bundle, **stolen),
        a_lie(liar, bundle, **stolen, owner=b"\x77" * 32),
        a_lie(liar, bundle, storage_id=prepared.storage_id),
        a_lie(liar, bundle, header=b""),
        a_lie(liar, bundle, bundle_root=Root(bytes(32))),
    )
    assert sorted(refused) == sorted(2 * [*2 * ["upload: foreign owner"], *4 * ["upload: bad header"]])
    assert all(m.rows("SELECT count(*) FROM announcements") == [(0,)] for m in honest)
    uploader.idle = False
    network.run_to_final()
    assert len(network.world.paid()) == 1
    assert network.world.reports[0].uploader == uploader.address


def test_what_an_older_release_heard_and_this_one_would_not_plays_no_part(a_network: MakeNetwork) -> None:
    network, liar = a_silent_first(a_network)
    bundle = liar.store.bundles.load_bundle(0)
    assert bundle is not None
    old = [a_lie(liar, bundle, header=b""), a_lie(liar, bundle, owner=b"\x77" * 32)]
    for member in network.members:
        for announcement in old:
            member.store.bundles.save_announced(announcement, 0)
        assert announced_uploads(member.context, bundle) == []
    network.run_to_final(limit_s=40)
    assert len(network.world.paid()) == 1


def test_the_turn_of_a_member_that_names_no_wallet_of_its_own_passes(a_network: MakeNetwork) -> None:
    network = a_network(4)
    network.run_until(0)
    without, thief, victim, last = turns(network)
    wallets = {without.address: None, thief.address: victim.storage.owner}
    network.world.nodes = tuple(
        replace(node, arweave=wallets.get(node.address, node.arweave)) for node in network.world.nodes
    )
    for member in network.members:
        member.restart()  # what it keeps of the chain in memory is from before
    network.world.publish(100, b'{"i":1}')
    network.run_to_final()
    assert network.world.reports[0].uploader == last.address, "a wallet that two name is nobody's"
    assert len(network.world.paid()) == 1
    assert bind_wallets(network.world.nodes, network.world.members) == {last.storage.owner: last.address}


# --- cannot tell now is never wrong -----------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 4])
def test_a_header_that_is_confirmed_without_its_data_is_seeded_again(a_network: MakeNetwork, n: int) -> None:
    network = a_network(n)
    network.world.confirms_without_data = True
    network.world.publish(100, b'{"i":1}')
    for member in network.members:
        member.storage.lost_seeds = 1
    network.run_to_final(limit_s=60)
    assert len(network.world.paid()) == 1


@pytest.mark.parametrize("failures", [1, 4])
def test_a_reader_that_was_killed_refuses_nothing(a_network: MakeNetwork, failures: int) -> None:
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    left = iter(range(failures))

    def kill() -> None:
        if next(left, None) is not None:
            raise ReaderFailed("bundle: its reader ended by signal 9")

    for member in network.members:
        member.reader.before = kill
    network.run_to_final(limit_s=60)
    assert len(network.world.paid()) == 1
    assert {state for m in network.members for (state,) in m.rows("SELECT state FROM announcements")} == {"verified"}


def test_one_validator_whose_reader_always_fails_neither_pays_anew_nor_stops_the_others(
    a_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    network.run_until(100)
    broken = turns(network)[1]

    def fail() -> None:
        raise ReaderFailed("bundle: needs more memory than is allowed")

    broken.reader.before = fail
    never_run(monkeypatch, turns(network)[0], Task.REPORT_SUBMIT)
    network.run_to_final(limit_s=60)
    assert len(network.world.paid()) == 1
    ((state, reason, tries),) = broken.rows("SELECT state, reason, tries FROM announcements")
    assert (state, reason) == ("unreadable", "bundle: needs more memory than is allowed")
    assert tries < 10, "ever more rarely"


def test_what_nobody_can_read_is_called_so_and_the_next_pays_anew(a_network: MakeNetwork) -> None:
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    network.run_until(100)
    first = turns(network)[0]

    def crash() -> None:
        if len(network.world.paid()) == 1:
            raise ReaderFailed("bundle: its reader ended by signal 11")

    for member in network.members:
        member.reader.before = crash
    states: set[str] = set()

    def is_paid_anew() -> bool:
        states.update(s for (s,) in first.rows("SELECT state FROM announcements"))
        return len(network.world.paid()) > 1

    network.run(is_paid_anew, 90)
    assert "unreadable" in states
    network.run_to_final(limit_s=90)


def test_a_lost_file_is_made_again_before_it_is_uploaded(a_network: MakeNetwork) -> None:
    network = a_network(1)
    network.world.publish(100, b'{"i":1}')
    (member,) = network.members
    bundle = sealed(network, member)
    Path(bundle.path).unlink()
    network.run_to_final()
    assert len(network.world.paid()) == 1
