"""One header is paid for, whoever stops, dies or is not heard, and wherever in the upload that happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from tests.fakes.small_network import Member, SmallNetwork
from tests.integration.steps.test_settling_lies import turns
from validator.ports.peers import Gossip
from validator.protocol.errors import TransientError
from validator.protocol.model import Address
from validator.steps.uploads import UNSIGNED, hear

MakeNetwork = Callable[..., SmallNetwork]

LONG_MS = 14_000
"""Longer than the stage of ten seconds."""


def uploading(a_network: MakeNetwork, n: int = 4) -> tuple[SmallNetwork, list[Member]]:
    """A network with a message, and its members in the order of their turns to upload."""
    network = a_network(n)
    network.world.publish(100, b'{"i":1}')
    network.run_until(100)
    return network, turns(network)


def require_one_verified(network: SmallNetwork, uploader: Member | None = None) -> None:
    """One header is paid for, all of its data is there, everybody has read it back; by whom, where that is certain."""
    (paid,) = network.world.paid()
    assert network.world.transactions[paid].data is not None
    assert network.world.reports[0].storage_id == paid
    if uploader is not None:
        assert network.world.reports[0].uploader == uploader.address
    for member in network.members:
        states = member.rows(f"SELECT state FROM announcements WHERE storage_id = x'{paid.hex()}'")
        assert member.away or states == [("verified",)]


@pytest.mark.parametrize(
    ("call", "times"),
    [
        ("WorldStorage.find_uploads(", 1),
        ("WorldStorage.prepare(", 1),
        ("SqlStore.bundles.save_upload(", 1),
        ("SqlStore.bundles.save_announced(", 1),
        ("DirectPeers.send(", 1),
        ("DirectPeers.send(", 3),
        ("WorldStorage.find_uploads(", 2),
        ("WorldStorage.post(", 1),
        ("SqlStore.bundles.save_upload_state(", 1),
        ("WorldStorage.seed(", 1),
        ("SqlStore.bundles.save_upload_state(", 2),
    ],
)
def test_an_uploader_that_is_stopped_for_longer_than_a_stage_costs_no_second_payment(
    a_network: MakeNetwork, call: str, times: int
) -> None:
    """Its worker stands still just before that call, or a gateway does not answer it; its peers are answered."""
    network, (first, *_) = uploading(a_network)
    left = iter(range(times))

    def stop(member: Member, task: str, _key: str, at: str) -> bool:
        if member is first and task == "bundle.upload" and at.startswith(call) and next(left, None) == times - 1:
            first.idle = True
            end_ms = network.clock.now_ms() + LONG_MS
            network.run(lambda: network.clock.now_ms() >= end_ms)
            first.idle = False
        return False

    network.kill_at = stop
    network.run_to_final(limit_s=60)
    assert next(left, None) is None, "it was stopped"
    require_one_verified(network)


def lose_announcements(member: Member, lost: Callable[[Address], bool], *, silently: bool) -> None:
    """What the member announces does not reach some, and it does not notice or does."""
    peers = member.context.peers._port  # type: ignore[attr-defined]
    send = peers.send

    def deliver(to: Address, gossip: Gossip) -> None:
        if not gossip.uploads or not lost(to):
            send(to, gossip)
        elif not silently:
            raise TransientError("connection refused")

    peers.send = deliver


@pytest.mark.parametrize("lost_to", ["one", "all"])
def test_an_announcement_that_is_lost_costs_no_second_payment(a_network: MakeNetwork, lost_to: str) -> None:
    """And who announced it is dead as soon as it has seeded: others have heard of it, or find it on the weave."""
    network, (first, second, *_) = uploading(a_network)
    lose_announcements(first, lambda to: lost_to == "all" or to == second.address, silently=True)
    stopped: list[Member] = []

    def die(member: Member, _entry: object) -> None:
        member.away = True
        stopped.append(member)

    def is_seeded(member: Member, task: str, _key: str, call: str) -> bool:
        return not stopped and task == "bundle.upload" and call.startswith("SqlStore.due.done")

    network.kill_at, network.on_killed = is_seeded, die
    network.run_to_final(limit_s=60)
    assert stopped == [first]
    require_one_verified(network, first)


def test_who_reaches_nobody_posts_nothing_and_is_heard_when_it_is_asked(a_network: MakeNetwork) -> None:
    network, (first, *_) = uploading(a_network)
    lose_announcements(first, lambda _: True, silently=False)
    network.run_to_final(limit_s=60)
    assert "0 members have taken our announcement, 2 must" in {ran.detail for ran in network.log}
    require_one_verified(network, first)


def test_gateways_that_are_down_for_stages_cost_no_second_payment(a_network: MakeNetwork) -> None:
    network, _ = uploading(a_network)
    for member in network.members:
        member.storage.unavailable = True
    end_ms = network.clock.now_ms() + 45_000
    network.run(lambda: network.clock.now_ms() >= end_ms)
    for member in network.members:
        member.storage.unavailable = False
    network.run_to_final(limit_s=60)
    require_one_verified(network)


@pytest.mark.parametrize("announced", [False, True])
def test_two_that_prepare_at_the_same_time_send_the_header_of_one(a_network: MakeNetwork, announced: bool) -> None:
    """The second in turn acts while the first stands before its announcement, or just behind it."""
    network, (first, second, *_) = uploading(a_network)
    call = "WorldStorage.find_uploads(" if announced else "SqlStore.bundles.save_announced("
    stood: list[str] = []

    def stand(member: Member, task: str, key: str, at: str) -> bool:
        if member is first and task == "bundle.upload" and at.startswith(call) and first.storage.prepared and not stood:
            stood.append(at)
            second.queue.enqueue("bundle.upload", key)
            first.idle = True
            end_ms = network.clock.now_ms() + 300
            network.run(lambda: network.clock.now_ms() >= end_ms)
            first.idle = False
        return False

    network.kill_at = stand
    network.run_to_final(limit_s=60)
    assert stood
    require_one_verified(network)


@pytest.mark.parametrize(("balance", "warnings"), [(11, []), (10, [10])])
def test_who_has_ten_uploads_left_is_warned(a_network: MakeNetwork, balance: int, warnings: list[int]) -> None:
    network, (member,) = uploading(a_network, 1)
    member.storage.fetch_balance = lambda: balance  # type: ignore[method-assign]
    with capture_logs() as captured:
        network.run_to_final()
    assert [line["uploads_left"] for line in captured if line["event"] == "wallet.runs_low"] == warnings


def test_what_one_has_found_on_the_weave_it_cannot_announce_in_anothers_name(a_network: MakeNetwork) -> None:
    """Found uploads are kept unsigned; told to a peer such a one is refused, and a signed one takes its place."""
    network, (first, second, third, _) = uploading(a_network)
    network.run(lambda: bool(second.store.bundles.load_announced(0)))
    bundle = third.store.bundles.load_bundle(0)
    assert bundle is not None
    (signed,) = (h.announcement for h in second.store.bundles.load_announced(0))
    assert signed.signer == first.address
    with third.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM announcements")
    unsigned = replace(signed, signature=UNSIGNED)
    third.service.receive(second.address, Gossip(uploads=(unsigned,)))
    assert third.store.bundles.load_announced(0) == []
    hear(third.context, bundle, unsigned, is_found=True)
    for told in (unsigned, signed, unsigned):
        third.service.receive(second.address, Gossip(uploads=(told,)))
    assert [h.announcement for h in third.store.bundles.load_announced(0)] == [signed]
