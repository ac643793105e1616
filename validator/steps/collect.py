"""Collect: pull a window from every live broker, check, deduplicate, save the set; the own observation follows.

Each window is pulled three times: so that the last page ends at the cut-off, again when its bundle's last window is
agreed, and once at window end + horizon. Only the first makes the observation; what later pulls find is a candidate
for a late set and is pushed to the peers at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from validator.codec import cbor
from validator.codec.outcome import encode_observation, observation_digest, part_order, set_root
from validator.codec.variants import Sighting
from validator.consensus.proposal import Span
from validator.consensus.window import make_entries, unite
from validator.errors import TransientError, ValidatorError
from validator.log import get_logger
from validator.model import Address, Block, ChainState, Digest, InstanceId, InstanceKind, Observation, Record, Window
from validator.parameters import Epoch, ParameterSet
from validator.ports import Broker, Pull, StepResult, StoredWindow
from validator.steps.catchup import is_pruned, without_state
from validator.steps.checking import Checked, ContractCheck, Permission, broker_shares, check_pulls
from validator.steps.context import (
    Context,
    NotYet,
    block_for,
    budgets_of,
    epoch_config,
    state_at,
    system_stream,
)

log = get_logger(__name__)

CUT_OFF = "cutoff"
BUNDLE = "bundle"
HORIZON = "horizon"
PULL_DEADLINE_MS = 10_000
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
    parameters = epoch.parameters
    block = block_for(context, window.start_ms, parameters)
    state = state_at(context, block)
    pulls = _pull(context, state, window, parameters, purpose)
    checked = check_pulls(
        pulls,
        Span.of_window(window),
        permission_at(context, state),
        contract_check_at(context, block),
        message_limit=parameters.message_limit,
    )
    if purpose == CUT_OFF:
        if _freeze(context, window, state, epoch.parameters, pulls, checked):
            _save_etags(context, start_ms, pulls)
        _open_round(context, window, epoch)
        return StepResult("collected", f"{len(checked.records)} messages")
    context.store.windows.save_rejections(start_ms, checked.rejections)
    new = keep_late(context, checked.records.values())
    _save_etags(context, start_ms, pulls)
    context.store.due.done(task_name(purpose), str(start_ms))
    return StepResult("pulled", f"{len(new)} late messages")


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
        digest = epoch_config(context, epoch.number).digest
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


def permission_at(context: Context, state: ChainState) -> Permission:
    """Who may publish at a block: the registry's word, for the system stream nodes with an http URL; cached."""
    system = system_stream(context.network)
    nodes = {node.address for node in state.brokers}
    known: dict[tuple[str, bytes], bool] = {}

    def permitted(stream_id: str, publisher: bytes) -> bool:
        if stream_id == system:
            return publisher in nodes
        key = (stream_id, publisher)
        if key not in known:
            answer = context.store.chain.load_permission(state.block.hash, stream_id, publisher)
            if answer is None:
                answer = context.chain.fetch_publish_permission(stream_id, Address(publisher), state.block)
                context.store.chain.save_permissions(state.block.hash, {key: answer})
            known[key] = answer
        return known[key]

    return permitted


def contract_check_at(context: Context, block: Block) -> ContractCheck:
    """Whether a contract finds a signature valid at a block (ERC-1271)."""

    def valid(record: Record) -> bool:
        message = record.message
        return context.chain.fetch_is_valid_signature(
            Address(message.publisher_id), record.signed_digest, message.signature, block
        )

    return valid


def keep_late(context: Context, records: Iterable[Record]) -> list[Record]:
    """Keep what is valid and in no agreed set as candidates of a late set; push what is new to all peers."""
    batch = list(records)
    stored = context.store.archive.stored_identities([r.identity for r in batch])
    new = context.store.archive.save_late([r for r in batch if r.identity not in stored], context.clock.now_ms())
    if new:
        push_late(context, new)
    return new


def push_late(context: Context, records: Sequence[Record]) -> None:
    """Tell every member of the current committee; what does not arrive is found again by its own late pull."""
    epoch = context.network.epoch_at(context.clock.now_ms()) or context.network.epoch_at(
        records[0].message.timestamp_ms
    )
    if epoch is None:
        return
    for member in epoch_config(context, epoch.number).committee:
        if member == context.address:
            continue
        try:
            context.peers.push_late(member, [r.canonical for r in records])
        except ValidatorError as error:
            log.debug("late.push_failed", member=member.hex(), reason=str(error))


def sightings_of(context: Context, start_ms: int) -> dict[Digest, Sighting]:
    """How many of the own brokers served each record of a window, by leaf hash."""
    data = context.store.windows.load_sightings(start_ms)
    if data is None:
        return {}
    (pairs,) = cbor.decode_object(data, "sightings/1", 1, max_bytes=1 << 30)
    return {Digest(leaf): Sighting(served, 0) for leaf, served in pairs}


def _pull(context: Context, state: ChainState, window: Window, parameters: ParameterSet, purpose: str) -> list[Pull]:
    brokers = [Broker(node.address, node.http_url) for node in state.brokers if node.http_url is not None]
    parts = sorted(budgets_of(context.network, state, parameters), key=part_order)
    etags: Mapping[tuple[Address, tuple[str, int]], str] = (
        {} if purpose == CUT_OFF else context.store.windows.load_etags(window.start_ms)
    )
    return context.source.fetch_window(
        brokers, parts, window, etags=etags, deadline_ms=context.clock.now_ms() + PULL_DEADLINE_MS
    )


def _save_etags(context: Context, start_ms: int, pulls: Sequence[Pull]) -> None:
    """After what was pulled is durable: the next pull is told "unchanged", and never hears of it again."""
    context.store.windows.save_etags(
        start_ms, {(p.broker, p.stream_part): p.etag for p in pulls if p.complete and p.etag}
    )


def _freeze(
    context: Context,
    window: Window,
    state: ChainState,
    parameters: ParameterSet,
    pulls: Sequence[Pull],
    checked: Checked,
) -> bool:
    """Save set and observation: from here on this is what we saw, whatever is learned later.

    False if another worker has frozen what it saw first.
    """
    sightings = {leaf: Sighting(len(who), 0) for leaf, who in checked.served.items()}
    union = unite(checked.records.values(), sightings)
    entries = make_entries(union.records)
    root = set_root(entries)
    answered = {p.stream_part for p in pulls if p.complete}
    parts = budgets_of(context.network, state, parameters)
    kept = {r.signed_digest for r in union.records}
    observation = Observation(
        instance=InstanceId(InstanceKind.WINDOW, window.start_ms),
        set_root=root,
        count=len(union.records),
        signed_bytes=sum(r.signed_bytes for r in union.records),
        incomplete=tuple(sorted((part for part in parts if part not in answered), key=part_order)),
        shares=broker_shares(union.records, checked, pulls, [node.address for node in state.brokers]),
        erc1271=tuple(sorted(checked.contract_signed & kept)[: parameters.erc1271_limit]),
        observer=context.address or NOBODY,
    )
    context.store.sets.save_set(root, union.records)
    context.store.windows.save_collected(
        window.start_ms,
        encode_observation(observation),
        checked.rejections,
        cbor.encode_object("sightings/1", [[leaf, s.served] for leaf, s in sorted(sightings.items())]),
    )
    log.info(
        "window.collected",
        window=window.start_ms,
        messages=observation.count,
        rejected=len({r[0] for r in checked.rejections}),
        incomplete=len(observation.incomplete),
        brokers=len(state.brokers),
    )
    stored = context.store.windows.load_window(window.start_ms)
    return stored is not None and stored.observation == observation_digest(observation)


def _open_round(context: Context, window: Window, epoch: Epoch) -> None:
    """What follows from a frozen observation; done again if a crash came between."""
    instance = InstanceId(InstanceKind.WINDOW, window.start_ms)
    now_ms = context.clock.now_ms()
    opened = context.store.rounds.create_round(instance, epoch_config(context, epoch.number).digest, now_ms)
    stored = context.store.windows.load_window(window.start_ms)
    if opened or (stored is not None and stored.state == "collected"):
        context.store.due.schedule(
            task_name(HORIZON), str(window.start_ms), window.end_ms + epoch.parameters.horizon_ms
        )
        context.store.due.schedule("round.advance", str(instance), now_ms)
        context.tasks.enqueue("round.advance", str(instance))
    context.store.due.done(task_name(CUT_OFF), str(window.start_ms))
