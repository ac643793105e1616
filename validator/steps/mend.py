"""Mend: what was held here and was damaged is obtained again.

Whatever lies on our disk can be had once more: a set from peers, who name it by the same root, or from what can still
be read of the file and what brokers serve; a bundle's file by writing it again (seal); an observation or an outcome
from peers (obtain). Until then whoever needs it is told "not yet", and nothing is refused or given up for it. A set
that nobody can give back (an observation that no peer fetched, of a window in which brokers hold more by now) stays
damaged: we prevote no fresh proposal of that instance, hear what the others decide, and go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from validator.log import get_logger
from validator.ports.queue import Ending, StepResult, Task
from validator.ports.states import WindowState
from validator.ports.stored import DamagedSet, StoredWindow
from validator.protocol.codec.outcome import set_root
from validator.protocol.columns import RecordSet
from validator.protocol.consensus.proposal import Span
from validator.protocol.consensus.window import make_entries, unite
from validator.protocol.errors import TransientError, ValidatorError
from validator.protocol.hashing import EMPTY_ROOT
from validator.protocol.model import Address, Digest, InstanceId, InstanceKind, Record, Root
from validator.steps.agreed import require_outcome
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle
from validator.steps.late_candidates import keep_left_out
from validator.steps.peer_sets import fetch_set
from validator.steps.pulling import pull_again
from validator.steps.serve_counts import CountsByLeaf

log = get_logger(__name__)

KEY = "all"
MAX_SETS = 8
"""Sets that one task tries, those first that waited longest."""
AGAIN_MS = 5_000
MAX_PULLED = 32
"""Windows that are pulled again for one late set: of its bundle first, then the newest before."""


def schedule_mending(context: Context, now_ms: int) -> None:
    """Beat's part: glance at all files after a start, and have damaged sets obtained again."""
    sets, noticed = context.store.sets, context.noticed
    if not noticed.all_files:
        try:
            noticed.files_upto = sets.glance(noticed.files_upto)
            noticed.all_files = noticed.files_upto is None
        except TransientError as error:
            log.warning("sets.not_looked_at", reason=str(error))
    if sets.damaged(1) and not context.store.due.pending(Task.SETS_MEND):
        context.store.due.schedule(Task.SETS_MEND, KEY, now_ms)


def mend(context: Context) -> StepResult:
    """Obtain damaged sets again, as far as it goes now. Safe to run twice: a set is what its root says."""
    damaged = context.store.sets.damaged(MAX_SETS)
    if not damaged:
        context.store.due.done(Task.SETS_MEND, KEY)
        return StepResult(Ending.WHOLE)
    context.store.due.postpone(Task.SETS_MEND, KEY, context.clock.now_ms() + AGAIN_MS)
    mended = sum(_mend(context, lost) for lost in damaged)
    if mended:
        context.tasks.enqueue(Task.SETS_MEND, KEY)
        return StepResult(Ending.MENDED, f"{mended} of {len(damaged)} sets")
    return StepResult(Ending.NOT_YET, f"nobody has {len(damaged)} damaged sets")


def _mend(context: Context, lost: DamagedSet) -> bool:
    sets, root = context.store.sets, lost.set_root
    if root == EMPTY_ROOT:
        sets.save_set(root, [])
        return True
    window = context.network.window_at(lost.newest_ms)
    instance = context.store.instances.find_set(root, [window.start_ms] if window is not None else [])
    if instance is None:
        settled = context.store.retention.last_settled(context.clock.now_ms())
        needed = settled is None or lost.newest_ms >= settled.end_ms
        sets.note_attempt(root, needed=needed)  # of a settled instance only what was decided is still asked for
        return False
    try:
        count = _obtain_again(context, instance, root)
    except ValidatorError as error:
        log.info("set.not_mended", instance=str(instance), set_root=root, reason=str(error))
        count = None
    if count is None:
        sets.note_attempt(root, needed=True)
        return False
    log.warning("set.mended", instance=str(instance), set_root=root, messages=count)
    if context.store.instances.mark_queued(instance):
        context.tasks.enqueue(Task.ROUND_ADVANCE, str(instance))
    stored = context.store.windows.load_window(instance.number) if instance.kind is InstanceKind.WINDOW else None
    if stored is not None and stored.state == WindowState.HELD:
        keep_left_out(context, instance, sets.open_set(set_root(require_outcome(context, instance).entries)))
    return True


def _obtain_again(context: Context, instance: InstanceId, root: Root) -> int | None:
    """Save the set as peers give it, else from what is left here and what brokers have; None if neither gives it."""
    left, leaves = context.store.sets.salvage(root)
    known = RecordSet(unite(left, {}).records)
    for member in _sources(context, instance):
        try:
            return fetch_set(context, instance, root, member, known)
        except ValidatorError as error:
            log.debug("set.not_fetched", instance=str(instance), member=member, reason=str(error))
    pool = {r.leaf: r for r in [*left, *_at_brokers(context, instance)]}
    for choose in _choices(context, instance, leaves):
        found = list(unite(choose(pool.values()), {}).records)
        if set_root(make_entries(found)) == root:
            context.store.sets.save_set(root, found)
            return len(found)
    return None


def _sources(context: Context, instance: InstanceId) -> list[Address]:
    """Those who signed the certificate hold what it names; an observed set may be with anybody who fetched it."""
    certificate = context.store.instances.load_certificate(instance)
    signers = [signer for signer, _ in certificate.signatures] if certificate is not None else []
    return context.identity.others(dict.fromkeys([*signers, *context.cut_points.instance_config(instance).committee]))


def _at_brokers(context: Context, instance: InstanceId) -> list[Record]:
    """What brokers have now of the instance's windows."""
    records: list[Record] = []
    for stored in _windows(context, instance):
        try:
            records += pull_again(context, stored)
        except TransientError as error:
            log.info("window.not_pulled", window=stored.window.start_ms, reason=str(error))
    return records


def _windows(context: Context, instance: InstanceId) -> Sequence[StoredWindow]:
    if instance.kind is InstanceKind.WINDOW:
        stored = context.store.windows.load_window(instance.number)
        return [stored] if stored is not None else []
    bundle = require_bundle(context.store, instance.number)
    span = Span.of_late_set(bundle.end_ms, context.cut_points.epoch_config(bundle.epoch).parameters)
    return context.store.windows.load_windows(span.from_ms, span.until_ms)[-MAX_PULLED:]


def _choices(
    context: Context, instance: InstanceId, leaves: frozenset[Digest] | None
) -> list[Callable[[Iterable[Record]], list[Record]]]:
    """Ways to say which of the records found were in the set: its own index, what was seen, what was agreed."""

    def indexed(records: Iterable[Record]) -> list[Record]:
        return [r for r in records if leaves is not None and r.leaf in leaves]

    def seen(records: Iterable[Record]) -> list[Record]:
        serve_counts = CountsByLeaf.of_instance(context, instance)
        return [r for r in records if r.leaf in serve_counts]

    def agreed(records: Iterable[Record]) -> list[Record]:
        found = list(records)
        identities = context.store.archive.identities_of(instance, [r.identity for r in found])
        return [r for r in found if r.identity in identities]

    return [indexed, seen, agreed, list]
