"""One lying member, or one that dies, never stops a bundle or its report, and never splits honest members."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from tests.builders import a_key, flip_s
from tests.fakes import small_network
from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import some_parameters
from validator.codec.report import decode_report, encode_report
from validator.hashing import hash_body
from validator.model import Address, Node
from validator.ports import Attestation, Gossip, StepResult
from validator.steps.attest import packed_signatures, valid_signatures
from validator.steps.context import Context, epoch_config

MakeNetwork = Callable[..., SmallNetwork]


def say(member: Member, change: Callable[[Gossip], Gossip]) -> None:
    """What the member tells others is changed on its way."""
    peers = member.context.peers._port  # type: ignore[attr-defined]
    tell = peers.broadcast

    def broadcast(gossip: Gossip, members: Iterable[Address]) -> object:
        return tell(change(gossip), members)

    peers.broadcast = broadcast


def never_run(monkeypatch: pytest.MonkeyPatch, member: Member, *tasks: str) -> None:
    """The member leaves these tasks to others."""
    for task in tasks:
        run = small_network.TASKS[task]

        def skip(context: Context, key: str, *rest: int, run: Callable[..., StepResult] = run) -> StepResult:
            if context.address == member.address:
                return StepResult("skipped", "left to others")
            return run(context, key, *rest)

        monkeypatch.setitem(small_network.TASKS, task, skip)


# --- attestations -----------------------------------------------------------------------------------


def test_an_attestation_that_the_contract_refuses_stops_nobody_elses_report(
    a_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    liar = network.members[0]
    never_run(monkeypatch, liar, "report.submit")
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
    config = epoch_config(member.context, 0)
    assert valid_signatures(member.context, config, draft) == {}
    network.run_to_final()
    signatures = valid_signatures(member.context, config, draft)
    assert set(signatures) == {m.address for m in network.members}, "it gives way to the one that holds"
    assert packed_signatures(config, signatures)


def test_a_flood_of_signatures_shown_for_a_report_keeps_no_honest_one_out(a_network: MakeNetwork) -> None:
    """All of them genuine: what an honest member signed elsewhere is shown as its attestation, too."""
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    liar, *honest = network.members
    liar.idle = True
    network.run(lambda: all(m.store.bundles.load_bundle(0) is not None for m in honest))
    for n in range(300):
        digest = hash_body(b"something else %d" % n)
        shown = [Attestation(0, digest, m.address, m.key.sign(digest)) for m in network.members]
        for victim in honest:
            victim.service.receive(liar.address, Gossip(attestations=tuple(shown)))
        network.clock.at_ms += 10
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
    assert network.world.reports[0].next_config_digest == epoch_config(network.members[0].context, 1).digest
    urls = {node.address: node.validator_url for node in network.world.nodes if node.validator_url}
    assert epoch_config(network.members[0].context, 1).urls == urls, "members are reached where they were"
