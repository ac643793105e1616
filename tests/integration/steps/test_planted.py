"""Planted bugs outside the agreement core: each claim holds, and breaks as soon as its bug is there.

``tests/simulator/mutations.py`` plants those of the core and names the tests that catch the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import pytest
import zstandard
from msgspec.structs import replace

from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import some_parameters
from validator.ports.states import UploadState
from validator.ports.stored import AnnouncedUpload, StoredBundle, StoredUpload
from validator.protocol.codec import manifest
from validator.protocol.codec.message import make_record
from validator.protocol.codec.outcome import decode_observation, set_root
from validator.protocol.consensus.reconcile import Records
from validator.protocol.hashing import hash_body
from validator.protocol.merkle import compute_root
from validator.protocol.model import (
    BundleHeader,
    Digest,
    EncryptionType,
    InstanceId,
    Record,
    Root,
    SignatureType,
)
from validator.steps import apply_decision, attest, reconcile
from validator.steps.agreed import load_outcome
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle
from validator.steps.uploads import announce, confirmed_uploads, tags_of

MakeNetwork = Callable[..., SmallNetwork]
Bug = Callable[[], AbstractContextManager[None]]
HEADER = BundleHeader(Digest(b"\x05" * 32), 4, Root(bytes(32)), 0, 1)

# --- ids-by-digest ----------------------------------------------------------------------------------

_same: dict[Digest, Digest] = {}
"""By leaf of a variant the leaf of the other: under their signed digest the two are one id."""


def variants_of_one_message_are_reconciled(a_network: MakeNetwork, bug: Bug) -> None:
    """One member's broker served a variant: it observed another set, and comes to hold what the others agree on."""
    network = a_network(4, brokers=3)
    genuine = network.world.publish(
        50, b'{"evm":1}', signature_type=SignatureType.ECDSA_SECP256K1_EVM, delays={0: 0, 1: 0}
    )
    variant = make_record(replace(genuine.message, encryption_type=EncryptionType.AES, group_key_id="any"))
    network.world.deliver(variant.message, {2: 0})
    _same.clear()
    _same[variant.leaf] = genuine.leaf
    odd = network.members[-1]
    odd.source.down.update(network.world.brokers[:2])
    with bug():
        network.run_to_held(limit_s=40)
    assert observed(odd) == [variant]
    assert [m.held(network.window()) for m in network.members] == [[genuine]] * 4


def observed(member: Member) -> list[Record]:
    window = member.store.windows.load_window(member.network.window().number)
    assert window is not None
    assert window.observation is not None
    body = member.store.instances.load_body(window.observation)
    assert body is not None
    return list(member.store.sets.iterate(decode_observation(body).set_root))


@contextmanager
def ids_by_digest() -> Iterator[None]:
    """Reconciliation's records are named by signed digest instead of leaf."""

    def records(items: Iterable[tuple[int, Digest]]) -> Records:
        return Records((at_ms, _same.get(leaf, leaf)) for at_ms, leaf in items)

    with mock.patch.object(reconcile, "Records", records):
        yield


# --- boundary-by-file -------------------------------------------------------------------------------


def ends_follow_canonical_bytes(a_network: MakeNetwork, bug: Bug) -> None:
    """Content that compresses to nearly nothing still fills a bundle."""
    network = a_network(parameters=[some_parameters(bundle_bytes=5_000)])
    for offset_ms in (100, 2_100):
        network.world.publish(offset_ms, b'{"same":"%s"}' % (b"a" * 3_000))
    with bug():
        network.run_to_held(1)
    first = require_bundle(network.members[0].context.store, 0)
    assert (first.first_ms, first.last_ms) == (network.window(0).number, network.window(0).number)


@contextmanager
def boundary_by_file() -> Iterator[None]:
    """Bundles are cut by the compressed size of what they hold."""

    def size(context: Context, instance: InstanceId) -> int:
        outcome = load_outcome(context, instance)
        assert outcome is not None
        records = context.store.sets.iterate(set_root(outcome.entries))
        return len(zstandard.compress(b"".join(record.canonical for record in records)))

    with mock.patch.object(apply_decision, "_canonical_bytes", size):
        yield


# --- attest-exclusive -------------------------------------------------------------------------------


def every_upload_that_was_read_back_is_attested(a_network: MakeNetwork, bug: Bug) -> None:
    """Two members uploaded the bundle: for either id all members sign a report."""
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    for member in network.members:
        member.sender.stuck.add(1)
    with bug():
        network.run(lambda: any(posted.data for posted in network.world.transactions.values()))
        (first,) = network.world.transactions.values()
        second = next(m for m in network.members if m.storage.owner != first.prepared.owner)
        upload_again(second)
        network.run(lambda: all(signers(m) == [4, 4] for m in network.members), limit_s=30)


def upload_again(member: Member) -> None:
    bundle = require_bundle(member.context.store, 0)
    prepared = member.storage.prepare(Path(bundle.path), tags_of(member.context, bundle))
    member.storage.post(prepared)
    member.storage.seed(prepared, Path(bundle.path))
    announce(member.context, bundle, StoredUpload(0, 0, prepared, UploadState.POSTED))


def signers(member: Member) -> list[int]:
    """How many members signed each report of the first bundle."""
    found = member.store.reports
    return [len({a.signer for a in found.load_attestations(report.digest)}) for report in found.load_reports(0)]


@contextmanager
def attest_exclusive() -> Iterator[None]:
    """Of a bundle's uploads one is attested, and a second storage id is refused."""

    def one(context: Context, bundle: StoredBundle) -> list[AnnouncedUpload]:
        known = {report.storage_id for report in context.store.reports.load_reports(bundle.number)}
        found = confirmed_uploads(context, bundle)
        return [h for h in found if h.announcement.storage_id in known] if known else found[:1]

    with mock.patch.object(attest, "confirmed_uploads", one):
        yield


# --- late-unbound -----------------------------------------------------------------------------------


def the_late_set_is_in_the_bundle_root(_: MakeNetwork, bug: Bug) -> None:
    windows = [hash_body(b"one"), hash_body(b"two")]
    with bug():
        roots = {manifest.bundle_root(HEADER, windows, hash_body(late)) for late in (b"late", b"another")}
    assert len(roots) == 2


@contextmanager
def late_unbound() -> Iterator[None]:
    """The bundle root covers header and windows only."""

    def root(leaves: Iterable[Digest]) -> Root:
        return compute_root(list(leaves)[:-1])

    with mock.patch.object(manifest, "compute_root", root):
        yield


@pytest.mark.parametrize(
    ("bug", "claim"),
    [
        (ids_by_digest, variants_of_one_message_are_reconciled),
        (boundary_by_file, ends_follow_canonical_bytes),
        (attest_exclusive, every_upload_that_was_read_back_is_attested),
        (late_unbound, the_late_set_is_in_the_bundle_root),
    ],
    ids=lambda function: function.__name__,
)
def test_a_planted_bug_breaks_its_claim_and_the_real_thing_keeps_it(
    a_network: MakeNetwork, bug: Bug, claim: Callable[[MakeNetwork, Bug], None]
) -> None:
    claim(a_network, nullcontext)
    with pytest.raises(AssertionError):
        claim(a_network, bug)
