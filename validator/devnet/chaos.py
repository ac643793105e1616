"""What ``--chaos`` does to a network: one injury per kind, all of them here.

An injury is a generator over ``Ground``: it does the harm, yields for how many seconds it is to last, and mends it; one
that has several parts yields several times. ``recovery`` carries injuries out one after the other while windows flow,
and measures how long the network takes after each until all is well.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from validator.devnet.children import Children, find_descendants
from validator.devnet.folder import RunFolder
from validator.devnet.places import BrokerPlace, ValidatorProcess
from validator.devnet.plan import CLOSING_WINDOWS, ChaosKind, Options
from validator.protocol.errors import ConfigError
from validator.quantities import show_count

KILLED_S = 3.0
"""So long a killed process is away: what a supervisor takes to start it again."""
PAUSED_S = 15.0
"""Longer than a request of a validator to a peer, a broker or a gateway may take."""
STEP_S = 3600
STEPPED_S = 8.0
END_S = 20.0
"""So long a process may take to end when it is told to."""
MIGRATE_S = 90.0
"""So long ``init`` may take, where everything else wants the same cores."""
OVER_S = 10.0
"""What an injury's slot has beside its own time, for recovery."""
MEMBERS = 4
"""One of four may be hurt."""


def _choose(validators: Sequence[ValidatorProcess], turn: int) -> ValidatorProcess:
    """Never the first, whose Flower one looks at."""
    return validators[1 + turn % (len(validators) - 1)]


@dataclass(slots=True)
class Ground:
    """What an injury may touch. ``turn``: how many came before it, so that not always the same part is hurt."""

    children: Children
    folder: RunFolder
    validators: Sequence[ValidatorProcess]
    brokers: Sequence[BrokerPlace]
    turn: int = 0

    @property
    def validator(self) -> ValidatorProcess:
        return _choose(self.validators, self.turn)

    @property
    def broker(self) -> BrokerPlace:
        """Never the last, which may be a liar."""
        return self.brokers[self.turn % (len(self.brokers) - 1)]


Hurt = Callable[[Ground], Iterator[float]]
Named = Callable[[Ground], str]
"""Whom it hurts, before it does."""


@dataclass(frozen=True, slots=True)
class Injury:
    """``what`` is done, in the summary's words, for ``lasts_s`` in all; ``hurt`` does it."""

    what: str
    lasts_s: float
    hurt: Hurt
    of: Named


def _named(name: str) -> Named:
    return lambda _ground: name


_worker: Named = attrgetter("validator.worker_name")
_server: Named = attrgetter("validator.server_name")
_beat: Named = attrgetter("validator.beat_name")
_broker: Named = attrgetter("broker.name")
_validator: Named = attrgetter("validator.name")


# --- processes that are killed --------------------------------------------------------------------


def _kill(name_of: Named, start: Callable[[Ground], None]) -> Hurt:
    def hurt(ground: Ground) -> Iterator[float]:
        ground.children.kill([name_of(ground)])
        yield KILLED_S
        start(ground)

    return hurt


def _empty_redis(ground: Ground) -> Iterator[float]:
    redis = ground.children.all["redis"]
    ground.children.kill(["redis"])
    yield KILLED_S
    ground.children.start_again(redis)


# --- processes that stand still -------------------------------------------------------------------


def _pause(name_of: Named) -> Hurt:
    def hurt(ground: Ground) -> Iterator[float]:
        name = name_of(ground)
        ground.children.signal([name], signal.SIGSTOP)
        yield PAUSED_S
        ground.children.signal([name], signal.SIGCONT)

    return hurt


# --- one too many, wrong clocks, full disks, upgrades ---------------------------------------------


def _second_beat(ground: Ground) -> str:
    return f"{ground.validator.beat_name}-2"


def _two_beats(ground: Ground) -> Iterator[float]:
    name = _second_beat(ground)
    ground.validator.start_beat(ground.children, name)
    yield PAUSED_S
    ground.children.kill([name])


def _step_clock(ground: Ground) -> Iterator[float]:
    """An hour ahead, right again, an hour behind, right again."""
    path = ground.validator.clock_file
    assert path is not None
    for off_s in (STEP_S, 0, -STEP_S):
        set_clock(path, off_s)
        yield STEPPED_S
    set_clock(path, 0)


def set_clock(path: Path, off_s: int) -> None:
    """Put the clocks of those that read this file wrong, in one step."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(str(off_s))
    os.replace(partial, path)


def _fill_disk(ground: Ground) -> Iterator[float]:
    """None of the validator's processes can write a byte into a file: database, sets, and its own log."""
    names = ground.validator.process_names
    _limit_files(ground.children, names, 0)
    yield PAUSED_S
    _limit_files(ground.children, names, resource.RLIM_INFINITY)


def _limit_files(children: Children, names: Sequence[str], most_bytes: int) -> None:
    for pid in find_descendants([children.all[name].process.pid for name in names]):
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


def _restart_all(ground: Ground) -> Iterator[float]:
    """One validator after the other is drained, told to end, its database migrated, and started again: an upgrade as
    the operator's chapter has it. Who ends in the middle of an upload and stays away for a stage lets the next pay."""
    for validator in ground.validators:
        drain = validator.start_drain(ground.children, MIGRATE_S / 2)
        ground.children.wait_for([drain], MIGRATE_S)
        ground.children.end(validator.process_names, END_S)
        init = validator.start_init(ground.children)
        ground.children.wait_for([init], MIGRATE_S)
        validator.start(ground.children)
        yield OVER_S


# --- all of them ----------------------------------------------------------------------------------


_AGAIN = f"SIGKILL, started again after {KILLED_S:.0f} s"
_STOP = f"SIGSTOP for {PAUSED_S:.0f} s"
INJURIES: Mapping[ChaosKind, Injury] = {
    ChaosKind.KILL_WORKER: Injury(
        _AGAIN, KILLED_S, _kill(_worker, lambda g: g.validator.start_worker(g.children)), _worker
    ),
    ChaosKind.KILL_SERVER: Injury(
        _AGAIN, KILLED_S, _kill(_server, lambda g: g.validator.start_server(g.children)), _server
    ),
    ChaosKind.KILL_BEAT: Injury(
        _AGAIN, KILLED_S, _kill(_beat, lambda g: g.validator.start_beat(g.children, _beat(g))), _beat
    ),
    ChaosKind.KILL_BROKER: Injury(
        _AGAIN, KILLED_S, _kill(_broker, lambda g: g.broker.start(g.children, g.folder)), _broker
    ),
    ChaosKind.PAUSE_WORKER: Injury(_STOP, PAUSED_S, _pause(_worker), _worker),
    ChaosKind.PAUSE_SERVER: Injury(_STOP, PAUSED_S, _pause(_server), _server),
    ChaosKind.PAUSE_BROKER: Injury(_STOP, PAUSED_S, _pause(_broker), _broker),
    ChaosKind.PAUSE_CHAIN: Injury(_STOP, PAUSED_S, _pause(_named("anvil")), _named("anvil")),
    ChaosKind.PAUSE_GATEWAY: Injury(_STOP, PAUSED_S, _pause(_named("gateway")), _named("gateway")),
    ChaosKind.EMPTY_REDIS: Injury(
        f"SIGKILL, started again empty after {KILLED_S:.0f} s", KILLED_S, _empty_redis, _named("redis")
    ),
    ChaosKind.TWO_BEATS: Injury(
        f"a second beat for {PAUSED_S:.0f} s, then SIGKILL", PAUSED_S, _two_beats, _second_beat
    ),
    ChaosKind.CLOCK: Injury(
        f"an hour ahead, right, an hour behind, {STEPPED_S:.0f} s each",
        3 * STEPPED_S,
        _step_clock,
        _validator,
    ),
    ChaosKind.DISK_FULL: Injury(f"no byte can be written for {PAUSED_S:.0f} s", PAUSED_S, _fill_disk, _validator),
    ChaosKind.ROLLING_RESTART: Injury(
        "each validator in turn is drained, ends, migrates, starts",
        MEMBERS * OVER_S,
        _restart_all,
        _named("all validators"),
    ),
}


def prepare(options: Options, folder: RunFolder, validators: Sequence[ValidatorProcess]) -> None:
    """Before anybody starts: a beat of its own and a clock that can be put wrong, for those that need them."""
    for turn, kind in enumerate(options.chaos):
        validator = _choose(validators, turn)
        if kind in (ChaosKind.KILL_BEAT, ChaosKind.TWO_BEATS):
            validator.has_own_beat = True
        if kind is ChaosKind.CLOCK:
            validator.clock_file = folder.path / "configs" / f"{validator.name}.clock"
            set_clock(validator.clock_file, 0)


def needed_s(kinds: Sequence[ChaosKind], validators: int, window_s: float) -> float:
    """How long injuries take together: each begins within a window, when the one before it is over."""
    total = 0.0
    for kind in kinds:
        lasts_s = validators * OVER_S if kind is ChaosKind.ROLLING_RESTART else INJURIES[kind].lasts_s
        total += -(-(lasts_s + OVER_S) // window_s) * window_s
    return total


def check_chaos(options: Options) -> None:
    """Raises ConfigError: too few parts to spare one, or too short a run for all that is to go wrong."""
    if not options.chaos:
        return
    if options.validators < MEMBERS or options.brokers < 2:
        raise ConfigError(
            f"--chaos: hurts one of its parts at a time; use --validators {MEMBERS} or more, --brokers 2 or more",
            field="chaos",
        )
    has_s = (options.windows + CLOSING_WINDOWS - 2) * options.window_seconds
    wants_s = needed_s(options.chaos, options.validators, options.window_seconds)
    if wants_s > has_s:
        windows = -(-wants_s // options.window_seconds) - CLOSING_WINDOWS + 2
        raise ConfigError(
            f"--chaos: {show_count(len(options.chaos), 'kind')} take up to {wants_s:.0f} s, which is longer than the "
            f"run; use --windows {windows:.0f} or more",
            field="chaos",
        )
