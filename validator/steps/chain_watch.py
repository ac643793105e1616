"""The head watcher: newest blocks, coming states, and reorganisations deeper than what counts as final.

Those are found and named, and what was read at a block that is gone is read anew.

A cut point is stored when it is final, and everything is judged by it from then on. Where finality is a number of
blocks the chain may still replace it. So the head watcher compares stored cut points with the chain's present hash at
their number, while they can matter: the newest in every look, since a block that stands vouches for all below it, and
a few of the others in turn, for those that were stored before it stood. One that differs is an ERROR with number, both
hashes and depth; its cut point is read anew, and with it state and permissions, which are kept by hash.

What was signed stays: observations, votes, late observations and report signatures are in the database and are never
made again; instances that were observed or agreed by a block that is gone are named. The committee of an epoch in
which anything was observed stays too, for its digest is in everything that was signed.
"""

from __future__ import annotations

from collections.abc import Sequence

from validator.log import get_logger
from validator.ports.queue import NotYet
from validator.ports.states import BundleState, WindowState
from validator.ports.stored import CutPoint, Reorganisation
from validator.protocol.model import Block
from validator.steps.context import Context

log = get_logger(__name__)

LOOK_MS = 10_000
IN_TURN = 15
"""Older cut points compared in one look, and so many at a time once one is found that differs."""
MAX_NAMED = 20


def watch_head(context: Context) -> None:
    """The head watcher's look: newest block and newest finalised block, and whether stored cut points still stand."""
    head, finalised = context.chain.fetch_head(), context.chain.fetch_finalised()
    context.store.chain.save_head(head, finalised)
    compare_blocks(context)


def prefetch_states(context: Context) -> None:
    """Chain state at ``B`` of the running window, read while it is recent, whether or not workers run."""
    window = context.network.window_at(context.clock.now_ms())
    if window is None:
        return
    try:
        parameters = context.cut_points.window_epoch(window).parameters
        context.cut_points.state_at(context.cut_points.block_for(window.start_ms, parameters))
    except NotYet:
        return  # not finalised yet; the next look has it


def compare_blocks(context: Context) -> int:
    """One look of the head watcher, at most every ``LOOK_MS``; returns how many cut points differed.

    Raises:
        TransientError: the sources do not answer or do not agree; nothing is changed.
    """
    now_ms = context.clock.now_ms()
    noticed = context.noticed
    if not noticed.once_per(LOOK_MS, "compare"):
        return 0
    since_s = _since(context, now_ms)
    newest = context.store.chain.load_cut_points(since_s, None, 1)
    turn = context.store.chain.load_cut_points(since_s, noticed.cut_points_below_s, IN_TURN)
    noticed.cut_points_below_s = turn[-1].at_s if len(turn) == IN_TURN else None
    differing = _differing(context, list(dict.fromkeys([*newest, *turn])))
    count = 0
    while differing:
        for cut, present in differing:
            _read_anew(context, cut, present)
        count += len(differing)
        oldest_s = min(cut.at_s for cut, _ in differing)
        differing = _differing(context, context.store.chain.load_cut_points(since_s, oldest_s, IN_TURN))
    return count


def _since(context: Context, now_ms: int) -> int:
    """The time of the oldest cut point that can still matter: of what no final report covers, and late sets reach."""
    settled = context.store.retention.last_settled(now_ms)
    from_ms = context.network.genesis_ms if settled is None else settled.end_ms
    reach_ms = 0 if settled is None else max(p.late_reach_ms for p in context.network.sets)
    return (from_ms - reach_ms) // 1000 - max(p.lag_s for p in context.network.sets)


def _differing(context: Context, cuts: Sequence[CutPoint]) -> list[tuple[CutPoint, Block]]:
    if not cuts:
        return []
    presents = context.chain.fetch_blocks([cut.block.number for cut in cuts])
    return [(cut, present) for cut, present in zip(cuts, presents, strict=True) if present.hash != cut.block.hash]


def _read_anew(context: Context, cut: CutPoint, present: Block) -> None:
    """Replace one cut point; None is stored where the chain has not got so far again."""
    again = context.chain.fetch_block_at(cut.at_s)
    head = context.chain.fetch_head()
    signed = _signed(context, cut)
    epoch = _epoch_in_use(context, cut)
    found = Reorganisation(
        at_s=cut.at_s,
        number=cut.block.number,
        stored_hash=cut.block.hash,
        present_hash=present.hash,
        depth=max(0, head.number - cut.block.number),
        signed=", ".join(signed[:MAX_NAMED]) + (f" and {len(signed) - MAX_NAMED} more" * (len(signed) > MAX_NAMED)),
        found_ms=context.clock.now_ms(),
    )
    if context.store.chain.replace_block(cut, again, found, epoch):
        context.cut_points.forget_state(cut.block)
        log.error(
            "chain.reorganised",
            block=found.number,
            stored=found.stored_hash,
            present=found.present_hash,
            depth=found.depth,
            signed=found.signed,
        )


def _signed(context: Context, cut: CutPoint) -> list[str]:
    """Instances that were observed or agreed by this cut point."""
    named: list[str] = []
    for parameters in context.network.sets:
        from_ms = (cut.at_s + parameters.lag_s) * 1000
        for stored in context.store.windows.load_windows(from_ms, from_ms + 1000):
            if stored.observation is not None or stored.state != WindowState.OPEN:
                named.append(f"window:{stored.window.start_ms}")
            bundle = context.store.bundles.last_bundle()
            while bundle is not None and bundle.last_ms > stored.window.start_ms and bundle.number:
                bundle = context.store.bundles.load_bundle(bundle.number - 1)
            if bundle is not None and bundle.last_ms == stored.window.start_ms:
                observed = context.store.windows.load_late_observation(bundle.number)
                if observed is not None or bundle.state != BundleState.OPEN:
                    named.append(f"late:{bundle.number}")
    return list(dict.fromkeys(named))


def _epoch_in_use(context: Context, cut: CutPoint) -> int | None:
    """The epoch whose committee was read at this cut point, if anything was observed or agreed in it."""
    for parameters in context.network.sets:
        epoch = context.network.epoch_at((cut.at_s + parameters.lag_s) * 1000 + 999)
        if epoch is None or epoch.start_ms // 1000 - epoch.parameters.lag_s != cut.at_s:
            continue
        windows = context.store.windows.load_windows(epoch.start_ms, epoch.end_ms)
        if any(stored.observation is not None or stored.state != WindowState.OPEN for stored in windows):
            return epoch.number
    return None
