"""Collect: pull a window from every live broker, check, deduplicate, save the set; the own observation follows.

Each window is pulled three times: so that the last page ends at the cut-off, again when its bundle's last window is
agreed, and once at window end + horizon. Only the first makes the observation; what later pulls find is a candidate
for a late set and is pushed to the peers at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from validator.log import get_logger
from validator.ports.queue import NotYet, StepResult
from validator.ports.sources import Broker, Pull, Streaming
from validator.ports.store import StoredWindow
from validator.protocol.codec import cbor
from validator.protocol.codec.outcome import encode_observation, observation_digest, part_order, set_root
from validator.protocol.codec.variants import Sighting
from validator.protocol.consensus.proposal import Span
from validator.protocol.errors import TransientError, ValidatorError
from validator.protocol.model import (
    Address,
    BrokerShare,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Observation,
    Reason,
    Record,
    StreamPart,
    Window,
)
from validator.protocol.parameters import Epoch, ParameterSet
from validator.steps.admission import AtBlock, recent_block
from validator.steps.catchup import is_pruned, without_state
from validator.steps.context import Context
from validator.steps.cut_points import budgets_of
from validator.steps.gathering import Gathering

log = get_logger(__name__)

CUT_OFF = "cutoff"
BUNDLE = "bundle"
HORIZON = "horizon"
PULL_DEADLINE_MS = 10_000
PULL_SHARE = 20
"""A long window's pull may take this part of its length, where that is more."""
LATE_BATCH = 2_000
NOBODY = Address(bytes(20))
"""The observer in observations of a validator without a seat; nobody counts them."""


def collect_window(context: Context, start_ms: int, purpose: str) -> StepResult:
    """Pull one window for one purpose. Safe to run twice: a frozen observation never changes.

    Raises:
        NotYet: the cut-off has not passed by clock and chain, or ``B`` is not finalised.
    """
    stored = context.store.windows.load_window(start_ms)
    if stored is None:
        return StepResult("unknown window")
    epoch = context.network.epoch(stored.epoch)
    assert epoch is not None
    try:
        return _collect(context, stored, epoch, purpose)
    except TransientError as error:
        if not is_pruned(error):
            raise
        return _without_state(context, stored.window, epoch, purpose, error)


def _collect(context: Context, stored: StoredWindow, epoch: Epoch, purpose: str) -> StepResult:
    window, start_ms = stored.window, stored.window.start_ms
    if purpose == CUT_OFF and stored.observation is not None:
        _open_round(context, window, epoch)
        return StepResult("already done")
    if purpose == CUT_OFF and stored.state != "open":
        return _decided_without_us(context, window, epoch)
    require_cut_off(context, window, epoch)
    with _gathered(context, window, epoch, purpose) as (state, pulls, gathered):
        count_refusals(gathered.refusals())
        if purpose == CUT_OFF:
            observation = _observe(context, window, state, epoch.parameters, pulls, gathered)
            if _freeze(context, window, observation, gathered):
                _save_etags(context, start_ms, pulls, gathered)
            _open_round(context, window, epoch)
            return StepResult("collected", f"{observation.count} messages")
        context.store.windows.save_rejections(start_ms, gathered.rejections)
        late = _keep_late_of(context, gathered)
        _save_etags(context, start_ms, pulls, gathered)
    context.store.due.done(task_name(purpose), str(start_ms))
    return StepResult("pulled", f"{late} late messages")


@contextmanager
def _gathered(
    context: Context, window: Window, epoch: Epoch, purpose: str
) -> Iterator[tuple[ChainState, list[Pull], Gathering]]:
    """Everything that brokers serve of a window now, checked at its block; after the cut-off, at a recent one too."""
    parameters = epoch.parameters
    block = context.cut_points.block_for(window.start_ms, parameters)
    state = context.cut_points.state_at(block)
    at = [AtBlock(context, block, parameters)]
    if purpose != CUT_OFF:
        at.append(AtBlock(context, *recent_block(context)))  # a late message may be admitted by a later block too
    parts = {part for one in at for part in one.budgets}
    with Gathering(context.data_dir / "scratch", parts) as gathered:
        pulls = _pull(context, state, window, parts, gathered, purpose)
        gathered.check(
            Span.of_window(window),
            lambda stream_id, publisher: any(one.permitted(stream_id, publisher) for one in at),
            lambda record: any(one.contract_check(record) for one in at),
            message_limit=parameters.message_limit,
        )
        yield state, pulls, gathered


def pull_again(context: Context, stored: StoredWindow) -> list[Record]:
    """Every valid message that brokers have of a window now, variants too, for who has lost a set of it."""
    epoch = context.network.epoch(stored.epoch)
    assert epoch is not None
    with _gathered(context, stored.window, epoch, CUT_OFF) as (_, _, gathered):
        return [load() for _, load in gathered.identities()]


def _decided_without_us(context: Context, window: Window, epoch: Epoch) -> StepResult:
    """Its certificate came before our first pull, whose observation would count no more. Later pulls find late ones."""
    key = str(window.start_ms)
    context.store.due.schedule(task_name(HORIZON), key, window.end_ms + epoch.parameters.horizon_ms)
    context.store.due.done(task_name(CUT_OFF), key)
    return StepResult("decided before")


def _without_state(context: Context, window: Window, epoch: Epoch, purpose: str, error: TransientError) -> StepResult:
    """Nothing can be checked. At the cut-off it is left to others to decide; a later pull ends without a word."""
    if purpose == CUT_OFF:
        instance = InstanceId(InstanceKind.WINDOW, window.start_ms)
        digest = context.cut_points.epoch_config(epoch.number).digest
        return without_state(context, instance, digest, task_name(CUT_OFF), str(window.start_ms), error)
    context.store.due.done(task_name(purpose), str(window.start_ms))
    return StepResult("pruned", str(error))


def task_name(purpose: str) -> str:
    """Tasks of the three pulls: window.collect, window.collect.bundle, window.collect.horizon."""
    return "window.collect" if purpose == CUT_OFF else f"window.collect.{purpose}"


def require_cut_off(context: Context, window: Window, epoch: Epoch) -> None:
    """Own clock >= window end + grace, and a block with timestamp >= window end. Raises NotYet."""
    due_ms = window.end_ms + epoch.parameters.grace_ms
    if context.clock.now_ms() < due_ms:
        raise NotYet("the cut-off lies ahead", wake_ms=due_ms)
    heads = context.store.chain.load_head()
    if heads is None or heads[0].timestamp_s * 1000 < window.end_ms:
        raise NotYet("the chain shows no block at or after the window's end")


def keep_late(context: Context, records: Iterable[Record]) -> list[Record]:
    """Keep what is valid and in no agreed set as candidates of a late set; push what is new to all peers."""
    batch = list(records)
    stored = context.store.archive.stored_identities([r.identity for r in batch])
    new = context.store.archive.save_late([r for r in batch if r.identity not in stored], context.clock.now_ms())
    if new:
        push_late(context, new)
    return new


def _keep_late_of(context: Context, gathered: Gathering) -> int:
    """The same for a whole window, in batches; only what no agreed set holds is read again. Returns how many."""
    count = 0
    records = gathered.identities()
    while batch := list(islice(records, LATE_BATCH)):
        stored = context.store.archive.stored_identities([identity for identity, _ in batch])
        count += len(keep_late(context, [load() for identity, load in batch if identity not in stored]))
    return count


def push_late(context: Context, records: Sequence[Record]) -> None:
    """Tell every member of the current committee; what does not arrive is found again by its own late pull."""
    epoch = context.network.epoch_at(context.clock.now_ms()) or context.network.epoch_at(
        records[0].message.timestamp_ms
    )
    if epoch is None:
        return
    for member in context.cut_points.epoch_config(epoch.number).committee:
        if member == context.identity.address:
            continue
        try:
            context.peers.push_late(member, [r.canonical for r in records])
        except ValidatorError as error:
            log.debug("late.push_failed", member=member, reason=str(error))


def sightings_of(context: Context, start_ms: int) -> dict[Digest, Sighting]:
    """How many of the own brokers served each record of a window, by leaf hash."""
    data = context.store.windows.load_sightings(start_ms)
    if data is None:
        return {}
    (pairs,) = cbor.decode_object(data, "sightings/1", 1, max_bytes=1 << 30)
    return {Digest(leaf): Sighting(served, 0) for leaf, served in pairs}


def _pull(
    context: Context,
    state: ChainState,
    window: Window,
    parts: Iterable[StreamPart],
    gathered: Gathering,
    purpose: str,
) -> list[Pull]:
    """Everything that brokers serve goes into ``gathered``."""
    brokers = [Broker(node.address, node.http_url) for node in state.brokers if node.http_url is not None]
    ordered = sorted(parts, key=part_order)
    etags: Mapping[tuple[Address, StreamPart], str] = (
        {} if purpose == CUT_OFF else context.store.windows.load_etags(window.start_ms)
    )
    source = context.source
    until_ms = context.clock.now_ms() + max(PULL_DEADLINE_MS, (window.end_ms - window.start_ms) // PULL_SHARE)
    if isinstance(source, Streaming):
        return source.stream_window(brokers, ordered, window, gathered.take, etags=etags, deadline_ms=until_ms)
    pulls = source.fetch_window(brokers, ordered, window, etags=etags, deadline_ms=until_ms)
    for pull in pulls:
        for record in pull.records:
            gathered.take(record.broker, pull.stream_part, record.position, [record.data], record.form)
    return pulls


def _save_etags(context: Context, start_ms: int, pulls: Sequence[Pull], gathered: Gathering) -> None:
    """After what was pulled is durable: the next pull is told "unchanged", and never hears of it again.

    So not where a message was refused that a later block may admit.
    """
    again = gathered.refused_parts(Reason.NOT_PERMITTED)
    context.store.windows.save_etags(
        start_ms,
        {(p.broker, p.stream_part): p.etag for p in pulls if p.complete and p.etag and p.stream_part not in again},
    )


def _observe(
    context: Context,
    window: Window,
    state: ChainState,
    parameters: ParameterSet,
    pulls: Sequence[Pull],
    gathered: Gathering,
) -> Observation:
    """Save the set; what it shows, with what brokers served and missed."""
    entries = context.store.sets.save_ordered(gathered.settle())
    answered = {p.stream_part for p in pulls if p.complete}
    parts = budgets_of(context.network, state, parameters)
    return Observation(
        instance=InstanceId(InstanceKind.WINDOW, window.start_ms),
        set_root=set_root(entries),
        count=sum(e.count for e in entries),
        signed_bytes=sum(e.signed_bytes for e in entries),
        incomplete=tuple(sorted((part for part in parts if part not in answered), key=part_order)),
        shares=gathered.shares(pulls, [node.address for node in state.brokers]),
        erc1271=tuple(sorted(gathered.erc1271)[: parameters.erc1271_limit]),
        observer=context.identity.address or NOBODY,
    )


def _freeze(context: Context, window: Window, observation: Observation, gathered: Gathering) -> bool:
    """Save the observation: from here on this is what we saw, whatever is learned later.

    False if another worker has frozen what it saw first.
    """
    context.store.windows.save_collected(
        window.start_ms, encode_observation(observation), gathered.rejections, gathered.sightings()
    )
    count_shares(observation.shares)
    log.info(
        "window.collected",
        window=window.start_ms,
        messages=observation.count,
        rejected=gathered.refused_records,
        incomplete=len(observation.incomplete),
    )
    stored = context.store.windows.load_window(window.start_ms)
    return stored is not None and stored.observation == observation_digest(observation)


def count_refusals(refusals: Mapping[tuple[Address, str], int]) -> None:
    """What brokers served and was refused, by reason, into the metrics."""
    from validator import metrics  # made where they are counted: the folder is known by then

    for (broker, reason), count in refusals.items():
        metrics.pull_refused.labels(f"0x{broker.hex()}", reason).inc(count)


def count_shares(shares: Sequence[BrokerShare]) -> None:
    """What each broker served and missed of a window, into the metrics."""
    from validator import metrics  # made where they are counted: the folder is known by then

    for share in shares:
        metrics.served_bytes.labels(f"0x{share.broker.hex()}").inc(share.served)
        metrics.missed_bytes.labels(f"0x{share.broker.hex()}").inc(share.missed)


def _open_round(context: Context, window: Window, epoch: Epoch) -> None:
    """What follows from a frozen observation; done again if a crash came between."""
    instance = InstanceId(InstanceKind.WINDOW, window.start_ms)
    now_ms = context.clock.now_ms()
    opened = context.store.instances.create_instance(
        instance, context.cut_points.epoch_config(epoch.number).digest, now_ms
    )
    stored = context.store.windows.load_window(window.start_ms)
    if opened or (stored is not None and stored.state == "collected"):
        context.store.due.schedule(
            task_name(HORIZON), str(window.start_ms), window.end_ms + epoch.parameters.horizon_ms
        )
        context.store.due.schedule("round.advance", str(instance), now_ms)
        context.tasks.enqueue("round.advance", str(instance))
    context.store.due.done(task_name(CUT_OFF), str(window.start_ms))
