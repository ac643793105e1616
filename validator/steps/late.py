"""Late sets: one instance per bundle, for what its windows missed.

Begun when the bundle's windows and the previous late set are held here, and the pulls that were due by then have
ended. What is observed are the candidates: valid, in no agreed set, inside the bundle's reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from validator.log import get_logger
from validator.ports.queue import NotYet, StepResult
from validator.protocol.codec.outcome import decode_outcome, encode_observation, set_root
from validator.protocol.consensus.proposal import Span
from validator.protocol.consensus.window import Budget, make_entries, may_be_full, unite
from validator.protocol.errors import TransientError
from validator.protocol.model import (
    Digest,
    Flag,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    Record,
    SignatureType,
    StreamPart,
)
from validator.steps.admission import admission_or_silence
from validator.steps.catchup import is_pruned, without_state
from validator.steps.collect import BUNDLE, HORIZON, NOBODY, collect_window, task_name
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle, system_stream
from validator.steps.records import load_records

log = get_logger(__name__)


def collect_late(context: Context, number: int) -> StepResult:
    """Freeze the late observation of a bundle and open its instance.

    Raises:
        NotYet: an earlier late set is not held, or a pull is under way.
    """
    bundle = require_bundle(context.store, number)
    config = context.cut_points.epoch_config(bundle.epoch)
    instance = InstanceId(InstanceKind.LATE, number)
    if context.store.windows.load_late_observation(number) is None:
        if context.store.instances.load_certificate(instance) is not None:
            context.store.due.done("late.collect", str(number))
            return StepResult("decided before")
        _require_predecessor(context, number)
        for stored in context.store.windows.load_windows(bundle.first_ms, bundle.end_ms):
            collect_window(context, stored.window.start_ms, BUNDLE)
        _require_horizon_pulls(context)
        try:
            _freeze(context, number)
        except TransientError as error:
            if not is_pruned(error):
                raise
            return without_state(context, instance, config.digest, "late.collect", str(number), error)
    context.store.instances.create_instance(instance, config.digest, context.clock.now_ms())
    context.store.due.schedule("round.advance", str(instance), context.clock.now_ms())
    context.tasks.enqueue("round.advance", str(instance))
    context.store.due.done("late.collect", str(number))
    return StepResult("collected")


def late_candidates(context: Context, number: int) -> list[Record]:
    """What the late set of a bundle may hold of what we have, as the bundle's blocks say: one variant per identity."""
    bundle = require_bundle(context.store, number)
    config = context.cut_points.epoch_config(bundle.epoch)
    span = Span.of_late_set(bundle.end_ms, config.parameters)
    instance = InstanceId(InstanceKind.LATE, number)
    behind = behind_full_entry(context)
    admits = admission_or_silence(context, instance)
    records = context.store.archive.load_late(span.from_ms, span.until_ms)
    union = unite([r for r in records if admits(r)], {})
    return [r for r in union.records if not behind(r)]


def behind_full_entry(context: Context) -> Callable[[Record], bool]:
    """Whether a record sorts after the end of a full entry of its own window (then the window has cut it).

    The system stream's limit holds per publisher, so there only the publisher's own records count.
    """
    entries: dict[tuple[int, StreamPart], dict[bytes, list[Record]] | None] = {}
    system = system_stream(context.network)

    def behind(record: Record) -> bool:
        window = context.network.window_at(record.message.timestamp_ms)
        if window is None:
            return False
        key = (window.start_ms, record.message.stream_part)
        if key not in entries:
            entries[key] = _full_entry(context, *key, per_publisher=key[1][0] == system)
        cut = entries[key]
        if cut is None:
            return False
        publisher = record.message.publisher_id if key[1][0] == system else b""
        if publisher not in cut:
            return key[1][0] != system
        return record.order > cut[publisher][-1].order

    return behind


def _full_entry(
    context: Context, start_ms: int, part: StreamPart, *, per_publisher: bool
) -> dict[bytes, list[Record]] | None:
    """The records of a full entry by publisher (under "" where the limit is of the whole); None if it is not full."""
    outcome = load_outcome(context, InstanceId(InstanceKind.WINDOW, start_ms))
    if outcome is None or not any(e.stream_part == part and Flag.FULL in e.flags for e in outcome.entries):
        return None
    epoch = context.network.epoch_at(start_ms)
    if epoch is None:
        return None
    by_publisher: dict[bytes, list[Record]] = {}
    for record in load_records(context, set_root(outcome.entries)):
        if record.message.stream_part == part:
            by_publisher.setdefault(record.message.publisher_id if per_publisher else b"", []).append(record)
    if not per_publisher:
        return by_publisher
    budget = Budget(epoch.parameters.partition_limit, message_limit=epoch.parameters.message_limit)
    return {who: records for who, records in by_publisher.items() if may_be_full(records, budget)}


def load_outcome(context: Context, instance: InstanceId) -> Outcome | None:
    """The decided outcome of an instance; None while undecided or not here."""
    certificate = context.store.instances.load_certificate(instance)
    body = context.store.instances.load_body(certificate.value) if certificate is not None else None
    return decode_outcome(body) if body is not None else None


def require_outcome(context: Context, instance: InstanceId) -> Outcome:
    """The same of an instance that is decided here; one whose body was damaged is fetched from who signed it.

    Raises:
        NotYet: undecided, or not here again.
    """
    certificate = context.store.instances.load_certificate(instance)
    if certificate is None:
        raise NotYet(f"{instance} is not decided here")
    body = context.store.instances.load_body(certificate.value)
    if body is None:
        signers = context.identity.others(signer for signer, _ in certificate.signatures)
        context.asking.fetch_soon(instance, "value", certificate.value, signers)
        raise NotYet(f"the outcome of {instance} is not here")
    return decode_outcome(body)


def _require_predecessor(context: Context, number: int) -> None:
    if number == 0:
        return
    outcome = require_outcome(context, InstanceId(InstanceKind.LATE, number - 1))
    if not context.store.sets.has_set(set_root(outcome.entries)):
        raise NotYet(f"the late set of bundle {number - 1} is not held")


def _require_horizon_pulls(context: Context) -> None:
    """Pulls at the horizon that are due by now have ended."""
    now_ms = context.clock.now_ms()
    for key in context.store.due.pending(task_name(HORIZON)):
        window = context.network.window(int(key))
        epoch = context.network.epoch_at(int(key))
        if window is not None and epoch is not None and window.end_ms + epoch.parameters.horizon_ms <= now_ms:
            raise NotYet(f"the pull at the horizon of window {key} is under way")


def contract_signatures(records: Sequence[Record]) -> tuple[Digest, ...]:
    """Digests of messages signed by contracts; a candidate was found valid here before it was kept."""
    return tuple(sorted(r.signed_digest for r in records if r.message.signature_type is SignatureType.ERC_1271))


def _freeze(context: Context, number: int) -> None:
    bundle = require_bundle(context.store, number)
    records = late_candidates(context, number)
    entries = make_entries(records)
    root = set_root(entries)
    observation = Observation(
        instance=InstanceId(InstanceKind.LATE, number),
        set_root=root,
        count=len(records),
        signed_bytes=sum(r.signed_bytes for r in records),
        erc1271=contract_signatures(records)[: context.cut_points.epoch_config(bundle.epoch).parameters.erc1271_limit],
        observer=context.identity.address or NOBODY,
    )
    context.store.sets.save_set(root, records)
    context.store.windows.save_late_observation(number, encode_observation(observation))
    log.info("late.collected", bundle=number, messages=len(records))
