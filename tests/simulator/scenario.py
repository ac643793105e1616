"""What one seed mixes: committee, faults, delays, who sees which message when. All drawn before the run."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.simulator.content import POOL, POOL_SIZE, RECORD_BYTES, WINDOWS, end_of
from validator.protocol.consensus.state import Timeouts
from validator.protocol.model import Address

SIZES = (1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 5, 5, 6, 7, 7, 7, 10, 13)
NEVER = 1 << 62


def member(index: int) -> Address:
    return Address(bytes([index + 1]) * 20)


@dataclass(slots=True)
class Sight:
    """When a member first gets a record, and how many of its brokers serve it."""

    at_ms: int
    leaf: bytes
    brokers: int


@dataclass(slots=True)
class Scenario:
    """Times are absolute virtual milliseconds. Members are counted from 0; committees are by window number."""

    seed: int
    members: int
    committees: tuple[tuple[int, ...], ...]
    windows: int = 1
    timeouts: Timeouts = field(default_factory=Timeouts)
    # network
    loss: float = 0.0
    repeat: float = 0.0
    delay_min_ms: int = 5
    delay_max_ms: int = 40
    heal_ms: int = 0
    bound_ms: int = 40
    least_ms: int = 5
    lossy_for_ever: bool = False
    cut_from_ms: int = 0
    cut_until_ms: int = 0
    cut: frozenset[int] = frozenset()
    ambush: float = 0.0
    # members
    skew_ms: tuple[int, ...] = ()
    pull_ms: tuple[int, ...] = ()
    liars: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()
    disk_lost: frozenset[int] = frozenset()
    old_copy: frozenset[int] = frozenset()
    twins: frozenset[int] = frozenset()
    """Members whose key a second machine uses too."""
    away: tuple[tuple[int, int, int], ...] = ()
    """(member, from, until): not there at all in between, though nothing is wrong with it."""
    door_rate: float = 0.0
    """How often what comes is put into the rows first, and met there by a worker that loads them."""
    crashes: int = 0
    crash_rate: float = 0.0
    stale_rate: float = 0.0
    # chain
    head_late_ms: int = 0
    block_late_ms: tuple[int, ...] = ()
    budget: int = 1 << 30
    reopen: bool = False
    # content: by window, by member
    variants: bool = False
    sights: tuple[tuple[tuple[Sight, ...], ...], ...] = ()
    prices: tuple[tuple[int | None, ...], ...] = ()
    # checks
    watched: int | None = None
    """The member whose every step is accounted for; None: all. In three of four plain runs it is none, for speed."""

    @property
    def faulty(self) -> frozenset[int]:
        return self.liars | self.gone | self.disk_lost | self.old_copy | self.twins

    @property
    def is_calm(self) -> bool:
        """Network, clocks and chain as they should be: an honest leader of round 0 decides, whatever liars do.

        Where brokers show variants, it may take until round n, from which on none is refused.
        """
        quiet = (
            self.heal_ms == 0
            and not self.reopen
            and not self.variants
            and not self.lossy_for_ever
            and not self.stale_rate
            and not self.away
        )
        together = max(self.pull_ms) <= 50 and max(self.skew_ms) - min(self.skew_ms) <= 50
        return quiet and together and self.bound_ms <= 60 and not any(self.block_late_ms)


def draw(seed: int, validators: int | None = None, *, plain: bool = False) -> Scenario:
    """The scenario of a seed. ``plain``: one window and its late set, 5 % loss, nothing else."""
    r = random.Random(seed * 2 + 1)
    n = validators if validators is not None else r.choice(SIZES)
    if plain:
        s = Scenario(seed, n, (tuple(range(n)),) * WINDOWS, loss=0.05, lossy_for_ever=True, watched=seed % (4 * n))
        s.skew_ms = s.block_late_ms = (0,) * n
        s.pull_ms = tuple(r.randrange(30) for _ in range(n))
        _draw_content(s, r, items=6, seen=0.95, late=0.05, forged=0.0)
        return s
    s = Scenario(seed, n, ())
    _draw_committees(s, r, n)
    _draw_network(s, r)
    _draw_members(s, r)
    if r.random() < 0.2:
        s.budget = RECORD_BYTES * r.randrange(1, 3)
    _draw_content(
        s,
        r,
        items=r.randrange(2, 9),
        seen=r.choice((0.5, 0.8, 0.95, 1.0)),
        late=r.choice((0.0, 0.1, 0.4)),
        forged=r.choice((0.0, 0.0, 0.3)),
        unreached=r.choice((0.0, 0.0, 0.2)),
    )
    return s


def steady(validators: int, delay_ms: int, seed: int = 0) -> Scenario:
    """Nothing goes wrong, all see the same, and every packet takes ``delay_ms``: what agreement costs at least."""
    s = Scenario(seed, validators, (tuple(range(validators)),) * WINDOWS)
    s.delay_min_ms = s.delay_max_ms = s.least_ms = s.bound_ms = delay_ms
    s.skew_ms = s.block_late_ms = s.pull_ms = (0,) * validators
    _draw_content(s, random.Random(seed), items=6, seen=1.0, late=0.0, forged=0.0)
    return s


def _draw_committees(s: Scenario, r: random.Random, n: int) -> None:
    """Usually one; sometimes a second epoch begins with the second window, and up to half of the members change."""
    s.windows = 1 if r.random() < 0.6 else 2
    first = tuple(range(n))
    second = first
    if s.windows == 2 and r.random() < 0.4:
        leave = r.randrange(0, n // 2 + 1)
        second = tuple(range(leave, n + r.randrange(0, leave + 1)))
    elif s.windows == 2:
        s.reopen = r.random() < 0.3
    s.committees = (first, second)
    s.members = max((*first, *second)) + 1


def _draw_network(s: Scenario, r: random.Random) -> None:
    kind = r.choice(("calm", "lossy", "lossy", "lossy", "split", "split", "slow"))
    end = end_of(0)
    if kind == "calm":
        s.repeat = r.choice((0.0, 0.1))
        return
    s.heal_ms = end + r.randrange(1_000, 25_000)
    s.loss = r.choice((0.0, 0.05, 0.2, 0.4))
    s.repeat = r.choice((0.0, 0.1, 0.3))
    s.delay_max_ms = r.choice((60, 300, 1_500))
    if kind == "split":
        s.cut_from_ms = end + r.randrange(0, 4_000)
        s.cut_until_ms = min(s.heal_ms, s.cut_from_ms + r.randrange(500, 10_000))
        s.cut = frozenset(i for i in range(s.members) if r.random() < 0.5)
    s.ambush = r.choice((0.0, 0.0, 0.3, 0.8))
    if kind == "slow":
        s.bound_ms = r.choice((300, 800, 3_000))
        s.least_ms = s.bound_ms * 4 // 5 if r.random() < 0.5 else 5
        s.delay_max_ms = max(s.delay_max_ms, s.bound_ms)


def _draw_members(s: Scenario, r: random.Random) -> None:
    count = s.members
    spread = r.choice((0, 0, 200, 1_000))
    s.skew_ms = tuple(r.randint(-spread, spread) for _ in range(count))
    slow_pull = r.choice((30, 30, 300, 3_000))
    s.pull_ms = tuple(r.randrange(slow_pull) for _ in range(count))
    if r.random() < 0.15:
        s.block_late_ms = tuple(r.choice((0, 0, r.randrange(3_000))) for _ in range(count))
    else:
        s.block_late_ms = (0,) * count
    if r.random() < 0.15:
        s.head_late_ms = r.randrange(3_000)
    _draw_faulty(s, r)
    if s.heal_ms and r.random() < 0.3:
        s.away = tuple(_draw_absence(s, r) for _ in range(r.randrange(1, 4)))
    s.door_rate = r.choice((0.0, 0.0, 0.1, 0.4))
    if s.heal_ms and r.random() < 0.6:
        s.crashes, s.crash_rate = r.randrange(1, 5), r.choice((0.005, 0.02, 0.06))
    if s.heal_ms and r.random() < 0.3:
        s.stale_rate = r.choice((0.01, 0.05))


def _draw_absence(s: Scenario, r: random.Random) -> tuple[int, int, int]:
    """From before the cut-off, or from any time on; back when the network heals at the latest."""
    leaves = end_of(0) + r.randrange(-900, max(1, s.heal_ms - end_of(0)))
    return r.randrange(s.members), leaves, min(s.heal_ms, leaves + r.randrange(200, 20_000))


def _draw_faulty(s: Scenario, r: random.Random) -> None:
    """At most f of every committee; mostly liars."""
    order = list(range(s.members))
    r.shuffle(order)
    room = [(len(c) - 1) // 3 if c else 0 for c in s.committees]
    if r.random() < 0.2:
        return
    groups: dict[str, set[int]] = {"liars": set(), "gone": set(), "disk_lost": set(), "old_copy": set(), "twins": set()}
    only = r.choice((None, None, "liars"))
    for i in order:
        inside = [k for k, c in enumerate(s.committees) if i in c]
        if any(room[k] == 0 for k in inside):
            continue
        for k in inside:
            room[k] -= 1
        kind = only or r.choice(("liars", "liars", "liars", "liars", "gone", "disk_lost", "old_copy", "twins"))
        if not s.heal_ms and kind in ("disk_lost", "old_copy"):
            kind = "liars"
        groups[kind].add(i)
    s.liars, s.gone = frozenset(groups["liars"]), frozenset(groups["gone"])
    s.disk_lost, s.old_copy = frozenset(groups["disk_lost"]), frozenset(groups["old_copy"])
    s.twins = frozenset(groups["twins"])


def _draw_content(
    s: Scenario, r: random.Random, *, items: int, seen: float, late: float, forged: float, unreached: float = 0.0
) -> None:
    s.variants = forged > 0
    sights, prices = [], []
    for window in range(s.windows):
        end = end_of(window)
        rows: list[list[Sight]] = [[] for _ in range(s.members)]
        cut_off = {i for i in range(s.members) if r.random() < unreached}  # no broker answers them in this window
        for index in sorted(r.sample(range(POOL_SIZE), items)):
            item = POOL[window][index]
            lied = r.random() < forged
            for member_index, row in enumerate(rows):
                if member_index in cut_off:
                    continue
                if r.random() < late:
                    row.append(Sight(end + r.randrange(100, 30_000), item.true.leaf, 2))
                elif r.random() < seen:
                    row.append(Sight(end - 1_000, item.true.leaf, 2))
                else:
                    continue
                if lied and r.random() < 0.5:
                    row.append(Sight(end - 1_000, item.forged.leaf, 1))
        sights.append(tuple(tuple(row) for row in rows))
        prices.append(tuple(None if r.random() < 0.1 else r.randrange(900, 1_100) for _ in range(s.members)))
    s.sights, s.prices = tuple(sights), tuple(prices)
