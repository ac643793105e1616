"""Obtain: fetch a set, an outcome or an observation that a statement names, moving only what is missing.

The set behind a root is compared with our own by one reconciliation session over the partitions that differ; what is
missing is fetched in pages, passes the same checks as broker data, and the result must have the root asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from validator.log import get_logger
from validator.ports.peers import Gossip
from validator.ports.queue import Ending, StepResult, Task
from validator.ports.stored import StoredInstance
from validator.protocol.codec.outcome import body_digest, decode_observation, decode_outcome, set_root
from validator.protocol.columns import MessageSet, RecordSet
from validator.protocol.errors import MalformedInput, TransientError, ValidatorError
from validator.protocol.model import Address, Digest, InstanceId, InstanceKind, Root, Statement, StatementKind
from validator.quantities import show_count
from validator.steps.asking import Fetch, Wanted
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig
from validator.steps.peer_sets import fetch_set
from validator.steps.statements import verify_gossip

log = get_logger(__name__)


def obtain(context: Context, key: str) -> StepResult:
    """Fetch what ``key`` names (``Fetch``) from the first source that has it."""
    wanted = Fetch.parse(key)
    instance, sources = wanted.instance, wanted.sources
    match wanted.what:
        case Wanted.OBSERVATION:
            here = _obtain_observations(context, instance, [Digest(wanted.digest)], sources)
            result = StepResult(Ending.OBTAINED if here else Ending.NOT_YET)
        case Wanted.SET:
            result = _obtain_set(context, instance, Root(wanted.digest), sources)
        case Wanted.VALUE:
            result = _obtain_value(context, instance, Digest(wanted.digest), sources)
    return _finish(context, instance, result)


def _finish(context: Context, instance: InstanceId, result: StepResult) -> StepResult:
    if result.name in (Ending.OBTAINED, Ending.ALREADY_HERE):
        instances = context.store.instances
        if instances.mark_queued(instance) or instances.load_certificate(instance) is not None:
            context.tasks.enqueue(Task.ROUND_ADVANCE, str(instance))  # one look serves all that has come until then
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
        return StepResult(Ending.NOT_YET, "no source has the outcome")
    try:
        outcome = decode_outcome(body)
    except MalformedInput as error:
        return StepResult(Ending.MALFORMED, str(error))
    if outcome.instance != instance:
        return StepResult(Ending.MALFORMED, f"an outcome of {outcome.instance}")
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
            bodies = {body_digest(body): body for body in told.bodies}
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
        return StepResult(Ending.ALREADY_HERE)
    own = _own_set(context, instance)
    reasons = []
    for member in sources:
        try:
            count = fetch_set(context, instance, root, member, own, proven=proven)
        except ValidatorError as error:
            log.info("set.not_fetched", instance=str(instance), member=member, reason=str(error))
            reasons.append(str(error))
            continue
        return StepResult(Ending.OBTAINED, show_count(count, "message"))
    return StepResult(Ending.NOT_YET, "; ".join(reasons)[:300])


def _is_proven(stored: StoredInstance | None, value: Digest) -> bool:
    """Whether a quorum has voted for this very value: what the chain says of it was asked then, and is not again."""
    if stored is None:
        return False
    certified = stored.certificate is not None and stored.certificate.value == value
    return certified or any(q.value == value for q in stored.quorums)


def _own_set(context: Context, instance: InstanceId) -> MessageSet:
    """What we observed of the instance: the start of every comparison."""
    if instance.kind is InstanceKind.WINDOW:
        window = context.store.windows.load_window(instance.number)
        digest = window.observation if window is not None else None
    else:
        digest = context.store.windows.load_late_observation(instance.number)
    body = context.store.instances.load_body(digest) if digest is not None else None
    if body is None:
        return RecordSet(())
    try:
        return context.store.sets.open_set(decode_observation(body).set_root)
    except TransientError as error:  # damaged: then more is fetched
        log.info("observed.not_read", instance=str(instance), reason=str(error))
        return RecordSet(())
