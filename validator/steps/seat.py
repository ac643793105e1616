"""Who this validator is in the committee now, and when that changes: what an operator asks first.

A committee is read at ``B`` of its epoch's start, so whoever stakes today sits at the earliest in the next epoch whose
block lies ahead. Until that block is final, membership is foretold from the newest state that is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from validator.durations import show_span
from validator.ports.queue import NotYet
from validator.protocol.errors import TransientError
from validator.protocol.model import Address, ChainState
from validator.protocol.parameters import Epoch, Network
from validator.protocol.quorum import choose_committee, quorum
from validator.quantities import show_count
from validator.steps.context import Context

LOOKED_AHEAD = 2
"""Epochs: the block of the next one may be behind us, that of the one after it never is."""

NEWEST = 4
"""Cut points; the newest may be one whose state nobody has asked for yet."""


class Standing(StrEnum):
    """Of this validator in the network."""

    MEMBER = "member"
    """It votes."""
    JOINING = "joining"
    """It has no seat yet, and will have one."""
    FOLLOWER = "follower"
    """A staked node without a seat: members answer it."""
    STRANGER = "stranger"
    """No staked node: no member answers it."""


@dataclass(frozen=True, slots=True)
class Seat:
    """``changes_*``: epoch and time with which it joins, or, of a member, leaves; None where nothing is foreseen.
    ``epoch`` None: the network has ended. ``reason``: why there is no seat."""

    standing: Standing
    observer: bool
    epoch: Epoch | None
    members: tuple[Address, ...] = ()
    changes_epoch: int | None = None
    changes_ms: int | None = None
    reason: str = ""


def find_seat(context: Context, own: Address, newest: ChainState | None, *, observer: bool) -> Seat:
    """``newest``: the newest state that is known, None for none.

    Raises:
        TransientError: the chain has not come so far, or does not answer.
    """
    network, now_ms = context.network, context.clock.now_ms()
    current = network.epoch_at(max(now_ms, network.genesis_ms))
    if current is None:
        return Seat(Standing.FOLLOWER, observer, None, reason="the network has ended")
    try:
        members = context.cut_points.epoch_config(current.number).committee
    except NotYet:
        members = ()  # of a network that has not begun
    seated = own in members
    change = _find_change(context, own, newest, current, seated=seated)
    epoch, start_ms = (None, None) if change is None else (change.number, change.start_ms)
    if seated:
        return Seat(Standing.MEMBER, observer, current, members, epoch, start_ms)
    if epoch is not None:
        return Seat(Standing.JOINING, observer, current, members, epoch, start_ms)
    standing, reason = _why_no_seat(network, newest, own, current)
    return Seat(standing, observer, current, members, reason=reason)


def _find_change(
    context: Context, own: Address, newest: ChainState | None, current: Epoch, *, seated: bool
) -> Epoch | None:
    """The next epoch in which it is otherwise."""
    first = current.number if context.clock.now_ms() < current.start_ms else current.number + 1
    for number in range(first, first + LOOKED_AHEAD):
        epoch = context.network.epoch(number)
        if epoch is None:
            return None
        try:
            committee: tuple[Address, ...] = context.cut_points.epoch_config(number).committee
        except TransientError:
            if newest is None:
                return None
            if newest.block.timestamp_s >= epoch.start_ms // 1000 - epoch.parameters.lag_s:
                continue  # its block is there and not final yet: who staked since is not in it
            committee = choose_committee(newest.nodes, epoch.parameters.committee_limit)
        if (own in committee) is not seated:
            return epoch
    return None


def _why_no_seat(network: Network, newest: ChainState | None, own: Address, current: Epoch) -> tuple[Standing, str]:
    if newest is None:
        return Standing.FOLLOWER, "the state of the chain is not known yet"
    node = next((node for node in newest.nodes if node.address == own), None)
    if node is None:
        return Standing.STRANGER, "it is no staked node: members do not answer it"
    if node.validator_url is None:
        return Standing.FOLLOWER, "its metadata names no validator URL"
    if network.epoch(current.number + 1) is None:
        return Standing.FOLLOWER, f"epoch {current.number} is the network's last"
    limit = current.parameters.committee_limit
    return (
        Standing.FOLLOWER,
        f"{show_count(limit, 'node has', 'nodes have')} more stake, and a committee has no more seats",
    )


def describe_seat(seat: Seat, now_ms: int) -> str:
    """The answer in one line."""
    if seat.epoch is None:
        return seat.reason
    voters = f"{show_count(len(seat.members), 'member')}, quorum {quorum(len(seat.members))}"
    begun = now_ms >= seat.epoch.start_ms
    running = f"epoch {seat.epoch.number}, {voters}" if begun else f"epoch {seat.epoch.number} has not begun"
    change = ""
    if seat.changes_epoch is not None and seat.changes_ms is not None:
        change = f"epoch {seat.changes_epoch}, in {show_span(seat.changes_ms - now_ms)}"
    if seat.observer:
        return f"observes and signs nothing (LOGSTORE_OBSERVER); {running}" + _because(seat)
    match seat.standing:
        case Standing.MEMBER:
            return f"votes in {running}" + (f"; leaves with {change}" if change else "")
        case Standing.JOINING:
            return f"joins with {change}; {running}"
        case _:
            return f"has no seat in {running}" + _because(seat)


def _because(seat: Seat) -> str:
    return f": {seat.reason}" if seat.reason else ""


def load_newest_state(context: Context) -> ChainState | None:
    """The state that was read last; None while there is none. Asks nobody."""
    for cut in context.store.chain.load_cut_points(0, None, NEWEST):
        state = context.store.chain.load_state(cut.block.hash)
        if state is not None:
            return state
    return None
