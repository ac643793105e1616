"""What a run of the development network is: options and their bounds, names, keys, parameter sets, timing. Pure.

A run has two parameter sets. Epoch 0 is the ``--windows`` windows, in bundles of four; its end closes the last of
them. Epoch 1, the network's last, is the closing bundle: one bundle of one window more, empty but for what was under
way, whose late set takes every message that came after its own window. A network that is kept has the first set only:
each epoch has ``--windows`` windows, and after one comes the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path

from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import ConfigError
from validator.protocol.hashing import hash_labelled
from validator.protocol.parameters import ParameterSet
from validator.quantities import show_count

BUNDLE_WINDOWS = 4
CLOSING_WINDOWS = BUNDLE_WINDOWS + 1
GRACE_MS = 2_000
"""Two blocks of the chain, so that the clock decides the cut-off in health."""
LAG_S = 4
"""More than anvil's finality of two blocks needs."""
STAGE_MS = 15_000
CONFIRMATIONS = 3
KILL_SPAN_S = 24.0
"""Shorter runs end before a killed validator could come back and vote."""
STUCK_S = 90.0
KEPT_MS = 10 * 365 * 86_400_000
"""How long traffic goes on where the network is kept: longer than anybody looks on."""
FLOWER_CHOICES = ("first", "all", "none")


class NetworkChoice(StrEnum):
    """What ``--network`` takes; ``auto``: the real one where it can be had."""

    AUTO = "auto"
    REAL = "real"
    SIMULATED = "simulated"


class LyingKind(StrEnum):
    """What ``--lying-broker`` takes: in which way one broker lies (``lying``)."""

    OMITS = "omits"
    ADDS = "adds"
    REORDERS = "reorders"
    TRUNCATES = "truncates"
    STALE = "stale"
    WRONG_ROOT = "wrong-root"
    BORROWS = "borrows"


class ChaosKind(StrEnum):
    """What ``--chaos`` takes: what goes wrong while windows flow (``chaos`` knows what each does)."""

    KILL_WORKER = "kill-worker"
    KILL_SERVER = "kill-server"
    KILL_BEAT = "kill-beat"
    KILL_BROKER = "kill-broker"
    PAUSE_WORKER = "pause-worker"
    PAUSE_SERVER = "pause-server"
    PAUSE_BROKER = "pause-broker"
    PAUSE_CHAIN = "pause-chain"
    PAUSE_GATEWAY = "pause-gateway"
    EMPTY_REDIS = "empty-redis"
    TWO_BEATS = "two-beats"
    CLOCK = "clock"
    DISK_FULL = "disk-full"
    ROLLING_RESTART = "rolling-restart"


ALL_CHAOS = "all"


def parse_chaos(text: str | None) -> tuple[ChaosKind, ...]:
    """Kinds with commas between them, in the order in which they are to happen. Raises ConfigError."""
    kinds: list[ChaosKind] = []
    for word in [] if text is None else text.split(","):
        if word == ALL_CHAOS:
            kinds += ChaosKind
        elif word in set(ChaosKind):
            kinds.append(ChaosKind(word))
        else:
            raise _refusal("chaos", f"{word!r} is no kind; known are {', '.join([*ChaosKind, ALL_CHAOS])}")
    return tuple(kinds)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of ``logstore-validator devnet``, in its words."""

    validators: int = 4
    brokers: int = 3
    consumers: int = 1
    windows: int = 8
    window_seconds: float = 6.0
    rate: float = 50.0
    loss: float = 0.05
    seed: int = 1
    json_file: Path | None = None
    data: Path | None = None
    flower: str = "first"
    keep: bool = False
    tour: bool = False
    kill_one: bool = False
    network: str = NetworkChoice.AUTO
    lying_broker: str | None = None
    chaos: tuple[ChaosKind, ...] = ()

    @property
    def window_ms(self) -> int:
        return round(self.window_seconds * 1000)

    @property
    def epoch_ms(self) -> int:
        """Length of an epoch, the closing one excepted."""
        return self.windows * self.window_ms

    @property
    def traffic_ms(self) -> int:
        """How long publishers publish and consumers read."""
        return KEPT_MS if self.keep else self.epoch_ms


_BOUNDS: dict[str, tuple[float, float]] = {
    "validators": (1, 31),
    "brokers": (1, 16),
    "consumers": (0, 16),
    "windows": (1, 1000),
    "window_seconds": (2, 600),
    "rate": (0.1, 2000),
    "seed": (0, 2**63 - 1),
}


def check_options(options: Options) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: names the option, its value and what it must be.
    """
    for field in fields(options):
        if field.name in _BOUNDS:
            low, high = _BOUNDS[field.name]
            value = getattr(options, field.name)
            if not low <= value <= high:
                raise _refusal(field.name, f"{value:g} does not work; from {low:g} to {high:g}")
    if not 0 <= options.loss < 1:
        raise _refusal("loss", f"{options.loss:g} does not work; at least 0 and below 1")
    if options.flower not in FLOWER_CHOICES:
        raise _refusal("flower", f"must be {', '.join(FLOWER_CHOICES[:-1])} or {FLOWER_CHOICES[-1]}")
    if options.network not in set(NetworkChoice):
        raise _refusal("network", f"must be {', '.join(list(NetworkChoice)[:-1])} or {list(NetworkChoice)[-1]}")
    if options.lying_broker is not None and options.lying_broker not in set(LyingKind):
        raise _refusal(
            "lying-broker", f"must be {', '.join(list(LyingKind)[:-1])} or {list(LyingKind)[-1]}", "lying_broker"
        )
    if options.lying_broker is not None and options.brokers < 3:
        raise _refusal(
            "lying-broker",
            f"{show_count(options.brokers, 'broker')} cannot spare one; use --brokers 3 or more",
            "lying_broker",
        )
    _check_kept(options)
    if options.kill_one and options.validators < 4:
        raise _refusal(
            "kill-one",
            f"{show_count(options.validators, 'validator')} cannot spare one; use --validators 4 or more",
            "kill_one",
        )
    if options.kill_one and options.windows * options.window_seconds < KILL_SPAN_S:
        raise _refusal(
            "kill-one",
            f"{options.windows} windows of {options.window_seconds:g} s are over before it is back; "
            f"--windows times --window-seconds must be at least {KILL_SPAN_S:g}",
            "kill_one",
        )


def _check_kept(options: Options) -> None:
    """What a network that goes on cannot do: nothing is checked at its end, for it has none."""
    if options.tour and not options.keep:
        raise _refusal("tour", "needs a network that goes on; add --keep")
    if options.keep and options.kill_one:
        raise _refusal("keep", "does not go with --kill-one, which is judged at the run's end", "keep")
    if options.chaos and (options.keep or options.kill_one):
        other = "--keep" if options.keep else "--kill-one"
        raise _refusal("chaos", f"does not go with {other}: it is judged at the run's end, one injury at a time")
    if options.keep and options.json_file is not None:
        raise _refusal("keep", "does not go with --json: a network that goes on has no summary", "keep")


def _refusal(option: str, reason: str, field: str | None = None) -> ConfigError:
    return ConfigError(f"--{option.replace('_', '-')}: {reason}", field=field or option)


# --- names and keys -------------------------------------------------------------------------------


def validator_name(index: int) -> str:
    return f"validator-{index + 1}"


def members_of(options: Options) -> dict[str, str]:
    """Node address (0x hex, lower case) to name, of every validator."""
    names = map(validator_name, range(options.validators))
    return {f"0x{make_key(options.seed, name, 'voting').address.hex()}": name for name in names}


def broker_name(index: int) -> str:
    return f"broker-{index + 1}"


def consumer_name(index: int) -> str:
    return f"consumer-{index + 1}"


def liar_index(options: Options) -> int:
    """Which broker lies with ``--lying-broker``: the last, since Streamr's SDK has its streams stored by the first."""
    return options.brokers - 1


def make_key(seed: int, name: str, purpose: str) -> SigningKey:
    """The key of one part for one purpose: the same for the same seed. Worth nothing outside this network."""
    return SigningKey(hash_labelled("logstore/devnet/key", str(seed).encode(), name.encode(), purpose.encode()))


def make_node_id(seed: int, number: int) -> str:
    """A place in the network that carries messages: 40 hex digits."""
    return hash_labelled("logstore/devnet/node", str(seed).encode(), str(number).encode())[:20].hex()


# --- parameters -----------------------------------------------------------------------------------


def parameter_sets(options: Options) -> tuple[ParameterSet, ...]:
    """Epoch 0 with the run's windows, and the closing epoch; where the network is kept, the first set alone.

    ``horizon_ms`` is four windows and two seconds: the network delays a message by at most four windows, so each
    window's last pull lies before the closing bundle's late set.
    """
    window_ms = options.window_ms
    common = {
        "window_ms": window_ms,
        "grace_ms": GRACE_MS,
        "horizon_ms": BUNDLE_WINDOWS * window_ms + 2_000,
        "margin_ms": 3 * CLOSING_WINDOWS * window_ms,
        "lag_s": LAG_S,
        "fresh_wait_windows": 0,
        "timeout_max_ms": 10_000,
        "windows_active": 6,
        "budget_windows": 6 * CLOSING_WINDOWS,
        "scope_floor": 1,
        "rent": 1_000,
        "price_max": 1 << 21,
        "price_default": 1 << 20,
        "read_ppm": 1_000_000,
        "confirmations": CONFIRMATIONS,
        "upload_stage_ms": STAGE_MS,
        "transmit_stage_ms": STAGE_MS,
    }
    first = ParameterSet(
        first_epoch=0,
        epoch_windows=options.windows,
        bundle_windows=BUNDLE_WINDOWS,
        **common,  # type: ignore[arg-type]  # integers all
    )
    if options.keep:
        return (first,)
    closing = ParameterSet(
        first_epoch=1,
        epoch_windows=CLOSING_WINDOWS,
        bundle_windows=CLOSING_WINDOWS,
        last=True,
        **common,  # type: ignore[arg-type]
    )
    return first, closing


def bundle_count(options: Options) -> int:
    """Bundles of the run, the closing one included."""
    return math.ceil(options.windows / BUNDLE_WINDOWS) + 1


# --- timing ---------------------------------------------------------------------------------------


def compute_launch_ms(validators: int, brokers: int, consumers: int, cores: int) -> int:
    """How long after the validators' launch the first window begins.

    A validator's three processes import for about 4.5 s of one core together, a broker for 2 s, the others 0.6 s each;
    on two cores, with some room, that is 22 s for the default network.
    """
    busy_s = 4.5 * validators + 2.0 * brokers + 0.6 * (consumers + 3)
    return 8_000 + round(busy_s * 1_000 / max(1, min(cores, 4)))


def align_to_second(ms: int) -> int:
    """The next full second: block times are seconds."""
    return -(-ms // 1000) * 1000


@dataclass(frozen=True, slots=True)
class KillPlan:
    """When one validator is killed, and when it is started again. Unix ms; ``at_window`` counts from 0."""

    validator: int
    at_window: int
    kill_ms: int
    restart_ms: int


def plan_kill(options: Options, genesis_ms: int) -> KillPlan:
    """The middle of the second window of the first bundle (of the first where there is one only), and back after two
    cut-offs. No bundle is sealed by then, so nobody has an upload under way. Never the first validator, whose Flower
    one looks at.
    """
    window_ms = options.window_ms
    at_window = min(1, options.windows - 1)
    choice = int.from_bytes(hash_labelled("logstore/devnet/kill", str(options.seed).encode())[:4], "big")
    second_cut_off = genesis_ms + (at_window + 2) * window_ms + GRACE_MS
    return KillPlan(
        validator=1 + choice % (options.validators - 1),
        at_window=at_window,
        kill_ms=genesis_ms + at_window * window_ms + window_ms // 2,
        restart_ms=second_cut_off + 500,
    )
