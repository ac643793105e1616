"""What the peers listener calls: take statements, answer with votes, sets, bodies and certificates.

Statements are verified, saved, and an advance is queued; the state machine runs in a worker, never here. Every set is
answered from exactly the set that was asked for, or refused.

At the door, in order of cost: is the instance one that has begun, the config digest ours, the statement one that its
signer may make; was this very statement taken before; may its sender have more signatures checked now; is the
signature genuine; would the core keep it. What is refused is counted by name and changes nothing. An honest member
verifies before it keeps and keeps before it tells, so a request with a wrong signature is dropped whole.

What comes with our own signature and our journal lacks passes the last of these doors in any case: it is kept, an
alarm is raised here, and the core says nothing more in that instance.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

from validator.buckets import Buckets
from validator.log import get_logger
from validator.ports.peers import Attestation, Gossip, Handshake, HeldVotes
from validator.ports.queue import Task
from validator.protocol.codec.certificate import verify_quorum
from validator.protocol.codec.outcome import body_digest, decode_observation, decode_outcome
from validator.protocol.codec.secp256k1 import verify_signature
from validator.protocol.codec.statement import verify_statement
from validator.protocol.consensus.reconcile import Records, answer
from validator.protocol.consensus.state import Rules, Timeouts, why_foreign
from validator.protocol.consensus.views import missing_for
from validator.protocol.consensus.votes import AHEAD
from validator.protocol.errors import ConfigError, MalformedInput, TransientError
from validator.protocol.model import (
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    PartitionEntry,
    Root,
    Statement,
    StatementKind,
    StreamPart,
    UploadAnnouncement,
    VoteQuorum,
)
from validator.protocol.parameters import PROTOCOL_VERSIONS
from validator.steps.admission import check_canonical
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig
from validator.steps.eligibility import is_too_early
from validator.steps.kept import Kept
from validator.steps.permissions import CandidateCheck
from validator.steps.reconcile import records_of
from validator.steps.seat import load_newest_state
from validator.steps.statements import WITH_BODY, load_bodies, restore_state
from validator.steps.uploads import announcements_for_peers, hear

log = get_logger(__name__)

COMPARED = 2
"""Sets kept sorted for comparisons, 40 bytes a message: a session has some ten to forty questions about one set."""

MAX_LATE_MESSAGES = 5_000
MEMBERS_FOR_MS = 2_000
AHEAD_MS = 120_000
"""How far another's clock may be ahead of ours: a window that ends later than that has no statements yet."""
CHECKS_PER_S = 500
CHECKS_BURST = 2_000
"""Signatures that are checked for one sender: what it signs itself is a few per window, what it relays is new once."""
REMEMBERED = 8_192
"""Statements and quorums known to be held, which are not looked at again."""


class Item(StrEnum):
    """What a peer's request holds."""

    STATEMENT = "statement"
    QUORUM = "quorum"
    UPLOAD = "upload"
    ATTESTATION = "attestation"
    BODY = "body"


class Refusal(StrEnum):
    """Why something of it is not kept. What the core would not keep is counted by the core's words."""

    UNKNOWN_INSTANCE = "unknown instance"
    FOREIGN_DIGEST = "foreign digest"
    BAD_SIGNATURE = "bad signature"
    STRANGER = "stranger"
    UNFIT = "unfit"
    MALFORMED = "malformed"
    TOO_OFTEN = "too often"
    FOREIGN_OWNER = "foreign owner"
    BAD_HEADER = "bad header"


_UPLOAD_REFUSALS = {
    "config_digest": Refusal.FOREIGN_DIGEST,
    "signature": Refusal.BAD_SIGNATURE,
    "owner": Refusal.FOREIGN_OWNER,
}
"""Names of what ``check_announcement`` finds; the rest is about the header."""

Refusals = Callable[[str, str], None]
"""Told which ``Item`` was refused and the name of the reason."""


def uncounted(what: str, reason: str) -> None:
    """Where nobody counts refusals."""
    del what, reason


class LocalPeerService:
    """The port ``PeerService`` over one validator's context."""

    def __init__(self, context: Context, on_refusal: Refusals = uncounted) -> None:
        self._context = context
        self._on_refusal = on_refusal
        self._held: OrderedDict[Statement | VoteQuorum, None] = OrderedDict()
        self._checks = Buckets(CHECKS_PER_S, CHECKS_BURST, lambda: context.clock.now_ms() / 1000)
        self._members: Mapping[Address, str] = {}
        self._members_until_ms = 0
        self._lock = threading.Lock()
        self._compared: Kept[tuple[Root, tuple[StreamPart, ...]], Records] = Kept(COMPARED)

    # --- who is served ---

    def members(self) -> Mapping[Address, str]:
        """Members of the current, the previous and the coming epoch, with the URLs of their metadata.

        Remembered for a moment: the block of the coming one is asked of the chain until it is final.
        """
        context = self._context
        clock_ms = context.clock.now_ms()
        if clock_ms < self._members_until_ms:
            return self._members
        urls: dict[Address, str] = {}
        now_ms = max(clock_ms, context.network.genesis_ms)
        current = context.network.epoch_at(now_ms)
        last = context.network.sets[-1].first_epoch
        number = current.number if current is not None else last
        for wanted in (number - 1, number, number + 1):
            if context.network.epoch(wanted) is None:
                continue
            try:
                urls.update(context.cut_points.epoch_config(wanted).urls)
            except TransientError:
                continue  # its block is not final yet
        self._members, self._members_until_ms = urls, clock_ms + MEMBERS_FOR_MS
        return urls

    def followers(self) -> frozenset[Address]:
        """Of the newest state that was read: a stake is what keeps a stranger's questions from being free."""
        newest = load_newest_state(self._context)
        nodes = () if newest is None else newest.nodes
        return frozenset(node.address for node in nodes) - self.members().keys()

    def handshake(self, sender: Address | None) -> Handshake:
        context = self._context
        configs = []
        for number in range(context.network.sets[-1].first_epoch + 1):
            try:
                configs.append(context.cut_points.epoch_config(number).preimage)
            except (TransientError, ConfigError):
                break
        heads = context.store.chain.load_head()
        return Handshake(
            member=context.identity.address or Address(bytes(20)),
            versions=PROTOCOL_VERSIONS,
            configs=tuple(configs),
            now_ms=context.clock.now_ms(),
            head=heads[0].number if heads is not None else 0,
        )

    # --- statements ---

    def receive(self, sender: Address, gossip: Gossip) -> None:
        """Keep what is genuine and news, count and drop the rest; wake the instances it is about.

        Raises:
            MalformedInput: a signature is not its signer's; nothing of the request is kept.
            TransientError: the sender has had too many signatures checked; nothing of the request is kept.
        """
        statements = self._accept_statements(sender, gossip.statements)
        quorums = [q for q in gossip.quorums if not self._is_held(q) and self._accept_quorum(sender, q)]
        if statements or quorums:
            bodies = self._read_bodies(gossip.bodies, statements)
            accepted = self._context.store.instances.accept(statements, bodies, quorums, self._context.identity.address)
            for foreign in accepted.foreign:
                self._raise_alarm(sender, foreign)
            for reason, count in accepted.dropped.items():
                for _ in range(count):
                    self._on_refusal(Item.STATEMENT, reason)
            self._hold((*(s for s in accepted.kept if s.kind not in WITH_BODY or s.value in bodies), *quorums))
            for instance in accepted.enqueue:
                self._context.tasks.enqueue(Task.ROUND_ADVANCE, str(instance))
        for upload in gossip.uploads:
            self._receive_upload(sender, upload)
        for attestation in gossip.attestations:
            self._receive_attestation(sender, attestation)

    def missing(self, sender: Address, held: HeldVotes) -> Gossip:
        """The statements and quorums of one instance that the sender lacks, whoever signed them.

        For a decided late set these are the announcements of the bundle that it closes.
        """
        context = self._context
        instances = context.store.instances
        stored = instances.load_instance(held.instance) or instances.load_unopened(held.instance, held.config_digest)
        if stored.config_digest != held.config_digest or not (stored.version or stored.statements or stored.quorums):
            return Gossip()
        if stored.certificate is not None:
            return Gossip(quorums=(stored.certificate,), uploads=announcements_for_peers(context, held.instance))
        config = context.cut_points.instance_config(held.instance)
        rules = Rules.of(
            held.instance,
            stored.config_digest,
            config.committee,
            context.identity.address,
            Timeouts.of(config.parameters),
        )
        lacking, quorums = missing_for(restore_state(rules, stored), held.held)
        return Gossip(statements=lacking, quorums=quorums, bodies=load_bodies(context, lacking))

    def body(self, sender: Address, digest: Digest) -> bytes:
        body = self._context.store.instances.load_body(digest)
        if body is None:
            raise TransientError(f"no body 0x{digest.hex()} here")
        return body

    def observations(
        self, sender: Address, instance: InstanceId, config_digest: Digest, digests: Sequence[Digest]
    ) -> Gossip:
        """Observations that an outcome names, as they were signed: also those beyond the two kept of each signer."""
        found = self._context.store.instances.load_observations(instance, config_digest, digests)
        return Gossip(statements=tuple(found), bodies=load_bodies(self._context, found))

    def certified(self, sender: Address, instances: Sequence[InstanceId]) -> list[tuple[InstanceId, bytes, VoteQuorum]]:
        found = []
        for instance in instances:
            certificate = self._context.store.instances.load_certificate(instance)
            body = self._context.store.instances.load_body(certificate.value) if certificate is not None else None
            if certificate is not None and body is not None:
                found.append((instance, body, certificate))
        return found

    # --- sets ---

    def entries(self, sender: Address, set_root: Root) -> tuple[PartitionEntry, ...]:
        entries = self._context.store.sets.load_entries(set_root)
        if entries is None:
            raise TransientError(f"no set 0x{set_root.hex()} here")
        return entries

    def reconcile(
        self, sender: Address, set_root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes:
        sets = self._context.store.sets
        if not sets.has_set(set_root):
            raise TransientError(f"no set 0x{set_root.hex()} here")
        key = (set_root, tuple(parts))
        records = self._compared.get(key)
        if records is None:
            records = self._compared.put(key, records_of(sets.open_set(set_root), parts))
        return answer(records, message, strong=strong)

    def messages(self, sender: Address, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]:
        found = self._context.store.sets.load_messages(set_root, leaves)
        if found is None:
            raise TransientError(f"no set 0x{set_root.hex()} here")
        return found

    def receive_late(self, sender: Address, messages: Sequence[bytes]) -> None:
        """Candidates for late sets from a peer: the checks of broker data, with the blocks of candidates."""
        context = self._context
        if len(messages) > MAX_LATE_MESSAGES:
            raise MalformedInput("late", f"{len(messages)} messages at once")
        now_ms = context.clock.now_ms()
        current = context.network.epoch_at(now_ms) or context.network.epoch(context.network.sets[-1].first_epoch)
        if current is None:
            return
        heads = context.store.chain.load_head()
        if heads is None:
            raise TransientError("the chain is not read yet")
        parameters = current.parameters
        candidates = CandidateCheck(context)
        from_ms = now_ms - parameters.late_reach_ms
        checked = check_canonical(
            messages,
            sender,
            lambda r: from_ms <= r.message.timestamp_ms < now_ms and candidates.in_scope(r),
            lambda _stream_id, _publisher: True,
            candidates.contract_check,
            message_limit=parameters.message_limit,
        )
        records = [r for r in checked.records.values() if candidates.admits(r)]
        stored = context.store.archive.stored_identities([r.identity for r in records])
        context.store.archive.save_late([r for r in records if r.identity not in stored], now_ms)

    # --- checks ---

    def _config(self, what: Item, instance: InstanceId, digest: Digest) -> EpochConfig | None:
        """The epoch config of an instance that has begun if the digest is that one; None is refused and counted."""
        context = self._context
        try:
            config = context.cut_points.instance_config(instance)
        except (TransientError, ConfigError) as error:
            self._refuse(what, None, Refusal.UNKNOWN_INSTANCE, str(error))
            return None
        if instance.kind is InstanceKind.WINDOW:
            end_ms = instance.number + config.parameters.window_ms
            if end_ms > context.clock.now_ms() + AHEAD_MS:
                self._refuse(what, None, Refusal.UNKNOWN_INSTANCE, "the window has not ended")
                return None
        if config.digest != digest:
            self._refuse(what, None, Refusal.FOREIGN_DIGEST, f"0x{digest.hex()}")
            return None
        return config

    def _accept_statements(self, sender: Address, statements: Sequence[Statement]) -> list[Statement]:
        """Those that are fit, not held yet and genuine. The sender pays for all checks before the first is made."""
        fit = [s for s in dict.fromkeys(statements) if not self._is_held(s) and self._is_fit(s)]
        self._spend(Item.STATEMENT, sender, len(fit), len(fit))
        for statement in fit:
            try:
                verify_statement(statement, self._context.identity.signing)
            except MalformedInput as error:
                self._refuse(Item.STATEMENT, statement.signer, Refusal.BAD_SIGNATURE, str(error))
                raise
        return fit

    def _is_fit(self, statement: Statement) -> bool:
        config = self._config(Item.STATEMENT, statement.instance, statement.config_digest)
        if config is None:
            return False
        if statement.signer not in config.committee:
            return self._refuse(Item.STATEMENT, statement.signer, Refusal.STRANGER)
        reason = why_foreign(_rules(statement.instance, config), statement)
        return self._refuse(Item.STATEMENT, statement.signer, Refusal.UNFIT, reason) if reason else True

    def _accept_quorum(self, sender: Address, votes: VoteQuorum) -> bool:
        config = self._config(Item.QUORUM, votes.instance, votes.config_digest)
        if config is None:
            return False
        self._spend(Item.QUORUM, sender, min(len(votes.signatures), len(config.committee)))
        try:
            verify_quorum(votes, config.digest, votes.instance, config.committee, self._context.identity.signing)
        except MalformedInput as error:
            self._refuse(Item.QUORUM, None, Refusal.BAD_SIGNATURE, str(error))
            raise
        if votes.kind is StatementKind.PRECOMMIT:
            self._context.store.instances.create_instance(votes.instance, config.digest, self._context.clock.now_ms())
        return True

    def _read_bodies(self, bodies: Sequence[bytes], statements: Sequence[Statement]) -> dict[Digest, bytes]:
        """Bodies that statements of the same request name, by digest; one that is none of its kind is refused."""
        kinds = {s.value: s.kind for s in statements}
        found: dict[Digest, bytes] = {}
        for body in bodies:
            digest = body_digest(body)
            kind = kinds.get(digest)
            try:
                if kind is StatementKind.OBSERVATION:
                    decode_observation(body)
                elif kind is StatementKind.PROPOSAL:
                    decode_outcome(body)
                else:
                    continue
            except MalformedInput as error:
                self._refuse(Item.BODY, None, Refusal.MALFORMED, str(error))
                continue
            found[digest] = body
        return found

    def _raise_alarm(self, sender: Address, foreign: Statement) -> None:
        """Our key has spoken elsewhere. Of instances before our database began that says nothing (the fresh wait)."""
        if not is_too_early(self._context, foreign.instance):
            log.error(
                "journal.unknown_statement",
                instance=str(foreign.instance),
                round=foreign.round,
                kind=foreign.kind.name.lower(),
                told_by=sender,
            )

    def _is_held(self, item: Statement | VoteQuorum) -> bool:
        with self._lock:
            return item in self._held

    def _hold(self, items: Sequence[Statement | VoteQuorum]) -> None:
        """A resend of these is not news. What is far ahead gives way to newer and is not remembered."""
        with self._lock:
            for item in items:
                if isinstance(item, VoteQuorum) or item.round <= AHEAD:
                    self._held[item] = None
            while len(self._held) > REMEMBERED:
                self._held.popitem(last=False)

    def _spend(self, what: Item, sender: Address, checks: int, items: int = 1) -> None:
        """Take checks of signatures from the sender's bucket. Raises TransientError if there are too few left; then
        all the ``items`` are counted as refused."""
        if not self._checks.acquire(sender, checks):
            self._refuse(what, None, Refusal.TOO_OFTEN, f"{items} at once")
            for _ in range(items - 1):
                self._on_refusal(what, Refusal.TOO_OFTEN)
            raise TransientError(f"more than {CHECKS_PER_S} new signatures a second", sender=sender)

    def _receive_upload(self, sender: Address, upload: UploadAnnouncement) -> None:
        bundle = self._context.store.bundles.load_bundle(upload.number)
        if bundle is None:
            self._refuse(Item.UPLOAD, upload.signer, Refusal.UNKNOWN_INSTANCE)
            return
        if upload.signer not in self._context.cut_points.epoch_config(bundle.epoch).committee:
            self._refuse(Item.UPLOAD, upload.signer, Refusal.STRANGER)
            return
        self._spend(Item.UPLOAD, sender, 1)
        try:
            hear(self._context, bundle, upload)
        except MalformedInput as error:
            self._refuse(Item.UPLOAD, upload.signer, _UPLOAD_REFUSALS.get(error.field, Refusal.BAD_HEADER), str(error))
            return
        except TransientError as error:
            self._refuse(Item.UPLOAD, upload.signer, Refusal.UNKNOWN_INSTANCE, str(error))

    def _receive_attestation(self, sender: Address, attestation: Attestation) -> None:
        """A signature that the contract accepts, of a member. What it signs need not be drafted here: few of each."""
        bundle = self._context.store.bundles.load_bundle(attestation.number)
        if bundle is None:
            self._refuse(Item.ATTESTATION, attestation.signer, Refusal.UNKNOWN_INSTANCE)
            return
        if attestation.signer not in self._context.cut_points.epoch_config(bundle.epoch).committee:
            self._refuse(Item.ATTESTATION, attestation.signer, Refusal.STRANGER)
            return
        self._spend(Item.ATTESTATION, sender, 1)
        try:
            verify_signature(attestation.report_digest, attestation.signature, attestation.signer)
        except MalformedInput as error:
            self._refuse(Item.ATTESTATION, attestation.signer, Refusal.BAD_SIGNATURE, str(error))
            return
        if self._context.store.reports.save_attestation(attestation):
            self._context.tasks.enqueue(Task.REPORT_ATTEST, str(attestation.number))

    def _refuse(self, what: Item, signer: Address | None, name: Refusal, detail: str = "") -> bool:
        self._on_refusal(what, name)
        log.debug(f"{what}.refused", signer=signer, reason=name, detail=detail)
        return False


@lru_cache(maxsize=1024)
def _rules_of(instance: InstanceId, digest: Digest, committee: tuple[Address, ...], timeouts: Timeouts) -> Rules:
    return Rules.of(instance, digest, committee, None, timeouts)


def _rules(instance: InstanceId, config: EpochConfig) -> Rules:
    """Who may say what in an instance; the permutation of its leaders is computed once."""
    return _rules_of(instance, config.digest, config.committee, Timeouts.of(config.parameters))
