"""Obtain: fetch a set, an outcome or an observation that a statement names, moving only what is missing.

The set behind a root is compared with our own by one reconciliation session over the partitions that differ; what is
missing is fetched in pages, passes the same checks as broker data, and the result must have the root asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from validator.log import get_logger
from validator.ports.peers import Gossip
from validator.ports.queue import NotYet, StepResult
from validator.ports.store import StoredInstance
from validator.protocol.codec.outcome import decode_observation, decode_outcome, set_root
from validator.protocol.consensus.window import group_by_part, make_entries, make_entry
from validator.protocol.errors import Disagreement, MalformedInput, TransientError, ValidatorError
from validator.protocol.hashing import hash_object
from validator.protocol.model import Address, Digest, InstanceId, InstanceKind, Record, Root, Statement, StatementKind
from validator.steps.admission import admission_to
from validator.steps.checking import check_canonical
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig, require_bundle
from validator.steps.late import load_outcome
from validator.steps.reconcile import OwnIndex, difference
from validator.steps.records import load_records
from validator.steps.statements import verify_gossip

log = get_logger(__name__)


def obtain(context: Context, key: str) -> StepResult:
    """Fetch what ``key`` names ("instance/what/digest/sources") from the first source that has it."""
    name, what, digest_hex, members = key.split("/")
    instance = InstanceId.parse(name)
    digest = bytes.fromhex(digest_hex)
    sources = [Address(bytes.fromhex(m)) for m in members.split(",") if m]
    if what == "observation":
        here = _obtain_observations(context, instance, [Digest(digest)], sources)
        return _finish(context, instance, StepResult("obtained" if here else "not yet"))
    if what == "set":
        return _finish(context, instance, _obtain_set(context, instance, Root(digest), sources))
    return _finish(context, instance, _obtain_value(context, instance, Digest(digest), sources))


def _finish(context: Context, instance: InstanceId, result: StepResult) -> StepResult:
    if result.name in ("obtained", "already here"):
        instances = context.store.instances
        if instances.mark_queued(instance) or instances.load_certificate(instance) is not None:
            context.tasks.enqueue("round.advance", str(instance))  # one look serves all that has come until then
    return result


def _obtain_value(context: Context, instance: InstanceId, value: Digest, sources: Sequence[Address]) -> StepResult:
    """The outcome's body, the observations it names, and the set behind it."""
    body = context.store.instances.load_body(value)
    for member in sources:
        if body is not None:
            break
        try:
            body = context.peers.fetch_body(member, value)
            context.store.instances.save_body(body)
        except ValidatorError as error:
            log.debug("body.not_fetched", member=member, reason=str(error))
    if body is None:
        return StepResult("not yet", "no source has the outcome")
    try:
        outcome = decode_outcome(body)
    except MalformedInput as error:
        return StepResult("malformed", str(error))
    if outcome.instance != instance:
        return StepResult("malformed", f"an outcome of {outcome.instance}")
    if len(outcome.observations) <= len(
        context.cut_points.instance_config(instance).committee
    ):  # else it is never valid
        _obtain_observations(context, instance, outcome.observations, sources)
    proven = _is_proven(context.store.instances.load_instance(instance), value)
    return _obtain_set(context, instance, set_root(outcome.entries), sources, proven=proven)


def _obtain_observations(
    context: Context, instance: InstanceId, digests: Sequence[Digest], sources: Sequence[Address]
) -> bool:
    """The observations, signed, with their bodies; whether all are here now.

    What a signer has said besides does not count: of one that signs many every member knows another two, and a
    proposal is judged by the very observations that it names.
    """
    config = context.cut_points.instance_config(instance)
    lacking = _lacking_observations(context, instance, config, digests)
    for member in sources:
        if not lacking:
            break
        try:
            told = context.peers.fetch_observations(member, instance, config.digest, lacking)
            bodies = {hash_object(body): body for body in told.bodies}
            for statement in told.statements:
                if statement.value not in bodies:  # not beside the others in one answer
                    bodies[statement.value] = context.peers.fetch_body(member, statement.value)
            genuine = _genuine_observations(context, config, instance, told.statements, bodies)
            context.store.instances.save_observations(genuine)
        except ValidatorError as error:
            log.debug("observation.not_fetched", member=member, reason=str(error))
            continue
        lacking = _lacking_observations(context, instance, config, digests)
    return not lacking


def _lacking_observations(
    context: Context, instance: InstanceId, config: EpochConfig, digests: Sequence[Digest]
) -> list[Digest]:
    """Those without statement or without body."""
    instances = context.store.instances
    signed = {s.value for s in instances.load_observations(instance, config.digest, digests)}
    return [digest for digest in digests if digest not in signed or instances.load_body(digest) is None]


def _genuine_observations(
    context: Context,
    config: EpochConfig,
    instance: InstanceId,
    statements: Sequence[Statement],
    bodies: Mapping[Digest, bytes],
) -> list[tuple[Statement, bytes]]:
    """Statements of members whose signature holds, each with a body of that member and this instance.

    Raises:
        MalformedInput: one is not genuine.
    """
    told = Gossip(statements=tuple(s for s in statements if s.kind is StatementKind.OBSERVATION and not s.round))
    genuine, _ = verify_gossip(context, config, told, instance)
    found = []
    for statement in genuine:
        observation = decode_observation(bodies[statement.value])
        if statement.signer in config.committee and observation.observer == statement.signer:
            found.append((statement, bodies[statement.value]))
    return found


def _obtain_set(
    context: Context, instance: InstanceId, root: Root, sources: Sequence[Address], *, proven: bool = False
) -> StepResult:
    if context.store.sets.has_set(root):
        return StepResult("already here")
    own = _own_records(context, instance)
    reasons = []
    for member in sources:
        try:
            records = fetch_set(context, instance, root, member, own, proven=proven)
        except ValidatorError as error:
            log.info("set.not_fetched", instance=str(instance), member=member, reason=str(error))
            reasons.append(str(error))
            continue
        context.store.sets.save_set(root, records)
        return StepResult("obtained", f"{len(records)} messages")
    return StepResult("not yet", "; ".join(reasons)[:300])


def fetch_set(
    context: Context, instance: InstanceId, root: Root, member: Address, own: Sequence[Record], *, proven: bool = False
) -> list[Record]:
    """One member's set, from what is ours and what it has more.

    Raises:
        Disagreement: what the member sent does not give the root, or does not pass our checks.
    """
    parts = group_by_part(own)
    index = {
        part: (make_entry(part, members), [(r.message.timestamp_ms, r.leaf) for r in members])
        for part, members in parts.items()
    }
    proven = proven or _is_certified(context, instance, root)
    with context.asking.session_with(member) as expired:
        return _fetch_set(context, instance, root, member, own, index, expired, proven=proven)


def _fetch_set(
    context: Context,
    instance: InstanceId,
    root: Root,
    member: Address,
    own: Sequence[Record],
    index: OwnIndex,
    expired: Callable[[], bool],
    *,
    proven: bool,
) -> list[Record]:
    for strong in (False, True):
        found = difference(context.peers, member, root, index, strong=strong, expired=expired)
        fetched = context.peers.fetch_messages(member, root, found.need) if found.need else []
        records = _check(context, instance, member, fetched, proven=proven)
        have = set(found.have)
        merged = [r for r in own if r.leaf not in have] + records
        merged.sort(key=lambda r: r.order)
        if set_root(make_entries(merged)) == root:
            log.info("set.obtained", instance=str(instance), member=member, fetched=len(fetched), of=len(merged))
            return merged
    raise Disagreement(f"the set of 0x{member.hex()} does not give its root", member=member, root=root)


def _is_proven(stored: StoredInstance | None, value: Digest) -> bool:
    """Whether a quorum has voted for this very value: what the chain says of it was asked then, and is not again."""
    if stored is None:
        return False
    certified = stored.certificate is not None and stored.certificate.value == value
    return certified or any(q.value == value for q in stored.quorums)


def _is_certified(context: Context, instance: InstanceId, root: Root) -> bool:
    """Whether a certificate says that this very set is the instance's, for who has lost it and mends it."""
    outcome = load_outcome(context, instance)
    return outcome is not None and set_root(outcome.entries) == root


def _any(_record: Record) -> bool:
    return True


def _anywhere(_stream_id: str, _publisher: bytes) -> bool:
    return True


def _check(
    context: Context, instance: InstanceId, member: Address, items: Sequence[bytes], *, proven: bool
) -> list[Record]:
    """The checks of broker data; of a proven value those by bytes alone, the rest would judge it a second time.

    Contract signatures: the observations say which are valid, not what a contract tells us.
    """
    if not items:
        return []
    limit = context.cut_points.instance_config(instance).parameters.message_limit
    if proven:
        return list(check_canonical(items, member, _any, _anywhere, _any, message_limit=limit).records.values())
    from_ms, until_ms = _bounds(context, instance)
    checked = check_canonical(
        items,
        member,
        lambda r: from_ms <= r.message.timestamp_ms < until_ms,
        _anywhere,
        _any,
        message_limit=limit,
    )
    if checked.rejections:
        window_ms = instance.number if instance.kind is InstanceKind.WINDOW else from_ms
        context.store.windows.save_rejections(window_ms, checked.rejections)
    admits = admission_to(context, instance)
    return [record for record in checked.records.values() if admits(record)]


def _bounds(context: Context, instance: InstanceId) -> tuple[int, int]:
    if instance.kind is InstanceKind.WINDOW:
        window = context.network.window(instance.number)
        if window is None:
            raise NotYet(f"no window starts at {instance.number}")
        return window.start_ms, window.end_ms
    bundle = require_bundle(context.store, instance.number)
    reach = context.cut_points.instance_config(instance).parameters.late_reach_ms
    return max(0, bundle.end_ms - reach), bundle.end_ms


def _own_records(context: Context, instance: InstanceId) -> list[Record]:
    """What we observed of the instance: the start of every comparison."""
    if instance.kind is InstanceKind.WINDOW:
        window = context.store.windows.load_window(instance.number)
        digest = window.observation if window is not None else None
    else:
        digest = context.store.windows.load_late_observation(instance.number)
    body = context.store.instances.load_body(digest) if digest is not None else None
    if body is None:
        return []
    try:
        return load_records(context, decode_observation(body).set_root)
    except TransientError as error:  # damaged: then more is fetched
        log.info("observed.not_read", instance=str(instance), reason=str(error))
        return []
