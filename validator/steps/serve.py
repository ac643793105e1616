"""What the peers listener calls: take statements, answer with votes, sets, bodies and certificates.

Statements are verified, saved, and an advance is queued; the state machine runs in a worker, never here. Every set is
answered from exactly the set that was asked for, or refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from validator.codec.secp256k1 import recover_address
from validator.codec.statement import verify_quorum, verify_statement, verify_upload
from validator.consensus.quorum import quorum
from validator.consensus.reconcile import Records, answer
from validator.consensus.round import missing_for
from validator.consensus.state import Rules, Timeouts, restore
from validator.errors import ConfigError, MalformedInput, RemoteFault, TransientError
from validator.hashing import hash_object
from validator.log import get_logger
from validator.model import (
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
from validator.parameters import PROTOCOL_VERSIONS
from validator.ports import Attestation, Gossip, Handshake, HeldVotes
from validator.steps.checking import check_canonical
from validator.steps.collect import contract_check_at, permission_at
from validator.steps.context import Context, EpochConfig, epoch_config, instance_config, state_at
from validator.steps.context import block_for as block_at

log = get_logger(__name__)

MAX_LATE_MESSAGES = 5_000
MEMBERS_FOR_MS = 2_000


class Service:
    """The port ``PeerService`` over one validator's context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._members: Mapping[Address, str] = {}
        self._members_until_ms = 0

    # --- who is served ---

    def members(self) -> Mapping[Address, str]:
        """Members of the current, the previous and the coming epoch, with the URLs of their metadata."""
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
            epoch = context.network.epoch(wanted)
            if epoch is None:
                continue
            try:
                state = state_at(context, block_at(context, epoch.start_ms, epoch.parameters))
            except TransientError:
                continue  # its block is not final yet
            urls.update({node.address: node.validator_url for node in state.nodes if node.validator_url})
        self._members, self._members_until_ms = urls, clock_ms + MEMBERS_FOR_MS
        return urls

    def handshake(self, sender: Address | None) -> Handshake:
        context = self._context
        configs = []
        for number in range(context.network.sets[-1].first_epoch + 1):
            try:
                configs.append(epoch_config(context, number).preimage)
            except (TransientError, ConfigError):
                break
        heads = context.store.chain.load_head()
        return Handshake(
            member=context.address or Address(bytes(20)),
            versions=PROTOCOL_VERSIONS,
            configs=tuple(configs),
            now_ms=context.clock.now_ms(),
            head=heads[0].number if heads is not None else 0,
        )

    # --- statements ---

    def receive(self, sender: Address, gossip: Gossip) -> None:
        """Keep what is genuine, drop and log the rest; wake the instances it is about."""
        bodies = {hash_object(body): body for body in gossip.bodies}
        touched: set[InstanceId] = set()
        statements: list[Statement] = []
        for statement in gossip.statements:
            if self._accept_statement(statement):
                statements.append(statement)
                touched.add(statement.instance)
                if statement.kind in (StatementKind.OBSERVATION, StatementKind.PROPOSAL):
                    body = bodies.get(statement.value)
                    if body is not None:
                        self._context.store.rounds.save_body(body)
        self._context.store.rounds.save_statements(statements)
        for votes in gossip.quorums:
            if self._accept_quorum(votes) and self._context.store.rounds.save_proof(votes):
                touched.add(votes.instance)
        for upload in gossip.uploads:
            self._receive_upload(upload)
        for attestation in gossip.attestations:
            self._receive_attestation(attestation)
        for instance in sorted(touched):
            self._wake(instance)

    def missing(self, sender: Address, held: HeldVotes) -> Gossip:
        """The statements and quorums of one instance that the sender lacks, whoever signed them."""
        context = self._context
        stored = context.store.rounds.load_round(held.instance)
        if stored is None or stored.config_digest != held.config_digest:
            return Gossip()
        if stored.certificate is not None:
            return Gossip(quorums=(stored.certificate,))
        config = instance_config(context, held.instance)
        rules = Rules.of(
            held.instance, stored.config_digest, config.committee, context.address, Timeouts.of(config.parameters)
        )
        statements = {(s.content, s.signer): s for s in (*stored.own, *stored.statements)}
        agreement = restore(rules, stored.progress, list(statements.values()), stored.proofs)
        lacking, quorums = missing_for(agreement, held.held)
        bodies = []
        for statement in lacking:
            if statement.kind in (StatementKind.OBSERVATION, StatementKind.PROPOSAL):
                body = context.store.rounds.load_body(statement.value)
                if body is not None:
                    bodies.append(body)
        return Gossip(statements=lacking, quorums=quorums, bodies=tuple(bodies))

    def body(self, sender: Address, digest: Digest) -> bytes:
        body = self._context.store.rounds.load_body(digest)
        if body is None:
            raise TransientError(f"no body {digest.hex()} here")
        return body

    def certified(self, sender: Address, instances: Sequence[InstanceId]) -> list[tuple[InstanceId, bytes, VoteQuorum]]:
        found = []
        for instance in instances:
            certificate = self._context.store.rounds.load_certificate(instance)
            body = self._context.store.rounds.load_body(certificate.value) if certificate is not None else None
            if certificate is not None and body is not None:
                found.append((instance, body, certificate))
        return found

    # --- sets ---

    def entries(self, sender: Address, set_root: Root) -> tuple[PartitionEntry, ...]:
        entries = self._context.store.sets.load_entries(set_root)
        if entries is None:
            raise TransientError(f"no set {set_root.hex()} here")
        return entries

    def reconcile(
        self, sender: Address, set_root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes:
        index = self._context.store.sets.load_index(set_root)
        if index is None:
            raise TransientError(f"no set {set_root.hex()} here")
        records = Records(record for part in parts for record in index.get(part, ()))
        return answer(records, message, strong=strong)

    def messages(self, sender: Address, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]:
        found = self._context.store.sets.load_messages(set_root, leaves)
        if found is None:
            raise TransientError(f"no set {set_root.hex()} here")
        return found

    def receive_late(self, sender: Address, messages: Sequence[bytes]) -> None:
        """Candidates for late sets from a peer: the checks of broker data, by the rules of their own windows."""
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
        block = block_at(context, min(now_ms, current.end_ms - 1) - parameters.window_ms, parameters)
        state = state_at(context, block)
        checked = check_canonical(
            messages,
            sender,
            lambda r: now_ms - parameters.late_reach_ms <= r.message.timestamp_ms < now_ms,
            permission_at(context, state),
            contract_check_at(context, block),
            message_limit=parameters.message_limit,
        )
        stored = context.store.archive.stored_identities([r.identity for r in checked.records.values()])
        context.store.archive.save_late([r for r in checked.records.values() if r.identity not in stored], now_ms)

    # --- checks ---

    def _config(self, instance: InstanceId, digest: Digest) -> EpochConfig | None:
        """The epoch config of an instance if the digest is that one; None is logged by the caller."""
        try:
            config = instance_config(self._context, instance)
        except (TransientError, ConfigError):
            return None
        return config if config.digest == digest else None

    def _accept_statement(self, statement: Statement) -> bool:
        config = self._config(statement.instance, statement.config_digest)
        if config is None:
            return self._refuse("statement", statement.signer, "unknown instance or foreign config digest")
        if statement.signer not in config.committee:
            return self._refuse("statement", statement.signer, "not in the committee")
        try:
            verify_statement(statement, self._context.signing)
        except MalformedInput as error:
            return self._refuse("statement", statement.signer, str(error))
        return True

    def _accept_quorum(self, votes: VoteQuorum) -> bool:
        config = self._config(votes.instance, votes.config_digest)
        if config is None:
            return self._refuse("quorum", None, "unknown instance or foreign config digest")
        try:
            verify_quorum(votes, config.committee, quorum(len(config.committee)), self._context.signing)
        except MalformedInput as error:
            return self._refuse("quorum", None, str(error))
        if votes.kind is StatementKind.PRECOMMIT:
            self._context.store.rounds.create_round(votes.instance, config.digest, self._context.clock.now_ms())
        return True

    def _receive_upload(self, upload: UploadAnnouncement) -> None:
        bundle = self._context.store.bundles.load_bundle(upload.number)
        if bundle is None or bundle.config_digest != upload.config_digest:
            self._refuse("upload", upload.signer, "unknown bundle or foreign config digest")
            return
        if upload.signer not in epoch_config(self._context, bundle.epoch).committee:
            self._refuse("upload", upload.signer, "not in the committee")
            return
        try:
            verify_upload(upload, self._context.signing)
        except MalformedInput as error:
            self._refuse("upload", upload.signer, str(error))
            return
        if self._context.store.bundles.save_heard(upload, self._context.clock.now_ms()):
            log.info("upload.heard", bundle=upload.number, signer=upload.signer.hex())
            self._context.tasks.enqueue("bundle.verify", str(upload.number))

    def _receive_attestation(self, attestation: Attestation) -> None:
        """Kept unverified against a report (it may not be drafted here yet), but only from members, one per digest."""
        bundle = self._context.store.bundles.load_bundle(attestation.number)
        if bundle is None:
            self._refuse("attestation", attestation.signer, "unknown bundle")
            return
        if attestation.signer not in epoch_config(self._context, bundle.epoch).committee:
            self._refuse("attestation", attestation.signer, "not in the committee")
            return
        try:
            genuine = recover_address(attestation.report_digest, attestation.signature) == attestation.signer
        except MalformedInput as error:
            self._refuse("attestation", attestation.signer, str(error))
            return
        if not genuine:
            self._refuse("attestation", attestation.signer, "signature is not of the named signer")
        elif self._context.store.reports.save_attestation(attestation):
            self._context.tasks.enqueue("report.attest", str(attestation.number))

    def _refuse(self, what: str, signer: Address | None, reason: str) -> bool:
        log.debug(f"{what}.refused", signer=signer.hex() if signer is not None else "", reason=reason)
        return False

    def _wake(self, instance: InstanceId) -> None:
        """Queue one advance: at most one per instance is queued by this path."""
        if instance.kind is InstanceKind.WINDOW and self._context.network.window(instance.number) is None:
            raise RemoteFault(f"no window starts at {instance.number}")
        if self._context.store.rounds.mark_queued(instance):
            self._context.tasks.enqueue("round.advance", str(instance))
