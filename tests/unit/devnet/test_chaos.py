"""--chaos: which kinds there are, what each does to its part, and how recovery is measured."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from validator.devnet import chaos as injuries
from validator.devnet import recovery as module
from validator.devnet.chaos import INJURIES, Ground, check_chaos, needed_s, prepare
from validator.devnet.children import Child
from validator.devnet.places import Doors, ValidatorProcess
from validator.devnet.plan import ChaosKind, Options, check_options, parse_chaos
from validator.devnet.progress import Progress
from validator.devnet.recovery import LIMIT_S, Chaos, find_ill
from validator.devnet.stepped_clock import SteppedClock
from validator.protocol.errors import ConfigError

GENESIS = 1_700_000_000_000
OPTIONS = Options(windows=12, window_seconds=8.0)
NAMES = {f"0x0{n}": f"validator-{n}" for n in (1, 2, 3, 4)}


class Children:
    """Writes down what is asked of it."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.all = {"redis": "redis"}

    def kill(self, names: list[str]) -> None:
        self.did += [f"kill {name}" for name in names]

    def end(self, names: tuple[str, ...], _limit_s: float) -> None:
        self.did += [f"end {name}" for name in names]

    def signal(self, names: list[str], number: signal.Signals) -> None:
        self.did += [f"{number.name} {name}" for name in names]

    def start(self, name: str, words: list[str], **_given: object) -> None:
        self.did.append(f"start {name}: {words[3]}" if words[1] == "-m" else f"start {name}")

    def start_again(self, child: str) -> None:
        self.did.append(f"start {child}")

    def wait_for(self, names: list[str], _limit_s: float) -> None:
        self.did += [f"wait {name}" for name in names]


class Broker:
    def __init__(self, number: int) -> None:
        self.name = f"broker-{number}"
        self.operator_url = f"http://127.0.0.1:{number}"

    def start(self, children: Children, _folder: object) -> None:
        children.did.append(f"start {self.name}")


def a_ground(turn: int = 0) -> Ground:
    validators = [ValidatorProcess(n, f"validator-{n + 1}", Doors(0, 0), {}) for n in range(4)]
    brokers = cast(Any, [Broker(n) for n in (1, 2, 3)])
    return Ground(cast(Any, Children()), cast(Any, None), validators, brokers, turn)


def did(kind: ChaosKind, turn: int = 0) -> list[Any]:
    """What an injury does, with the seconds that it lets pass in between."""
    ground = a_ground(turn)
    done = cast(Any, ground.children).did
    for seconds in INJURIES[kind].hurt(ground):
        done.append(seconds)
    return list(done)


@pytest.fixture(autouse=True)
def no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    class Listener:
        def fileno(self) -> int:
            return 0

        def close(self) -> None: ...

    monkeypatch.setattr("validator.devnet.places.reserve", lambda _port: Listener())


# --- kinds ----------------------------------------------------------------------------------------


def test_kinds_are_named_and_an_unknown_one_is_refused_by_its_name() -> None:
    assert parse_chaos(None) == ()
    assert parse_chaos("clock,kill-broker") == (ChaosKind.CLOCK, ChaosKind.KILL_BROKER)
    assert parse_chaos("all") == tuple(ChaosKind)
    for text in ("kill-bus", "", "clock,", "KILL-BEAT"):
        with pytest.raises(ConfigError, match=f"^--chaos: {text.removeprefix('clock,')!r} is no kind; known are kill-"):
            parse_chaos(text)


def test_every_kind_has_an_injury_whose_time_is_known() -> None:
    assert set(INJURIES) == set(ChaosKind)
    for kind in set(ChaosKind) - {ChaosKind.CLOCK, ChaosKind.DISK_FULL}:  # these two have tests of their own
        assert sum(word for word in did(kind) if isinstance(word, float)) == INJURIES[kind].lasts_s


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"validators": 3}, "--validators 4"),
        ({"brokers": 1}, "--brokers 2"),
        ({"windows": 2, "chaos": tuple(ChaosKind)}, "use --windows"),
    ],
)
def test_a_run_too_small_or_too_short_is_refused(changes: dict[str, Any], named: str) -> None:
    given = {"windows": 8, "window_seconds": 8.0, "chaos": (ChaosKind.KILL_WORKER,), **changes}
    with pytest.raises(ConfigError, match=r"^--chaos: ") as caught:
        check_chaos(Options(**given))
    assert named in str(caught.value)


def test_the_windows_that_are_asked_for_suffice() -> None:
    kinds = tuple(ChaosKind)
    with pytest.raises(ConfigError) as caught:
        check_chaos(Options(windows=1, window_seconds=8.0, chaos=kinds))
    windows = int(str(caught.value).split("--windows ")[1].split()[0])
    check_chaos(Options(windows=windows, window_seconds=8.0, chaos=kinds))
    assert (windows + 3) * 8 >= needed_s(kinds, 4, 8.0) > (windows + 2) * 8


@pytest.mark.parametrize("other", [{"keep": True}, {"kill_one": True}])
def test_it_does_not_go_with_what_is_judged_otherwise(other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^--chaos: does not go with --k"):
        check_options(Options(chaos=(ChaosKind.CLOCK,), **other))


# --- what each does -------------------------------------------------------------------------------


def test_who_is_killed_is_started_again() -> None:
    assert did(ChaosKind.KILL_WORKER) == ["kill validator-2.worker", 3.0, "start validator-2.worker: worker"]
    assert did(ChaosKind.KILL_SERVER, 1) == ["kill validator-3.serve", 3.0, "start validator-3.serve: serve"]
    assert did(ChaosKind.KILL_BEAT, 2) == ["kill validator-4.beat", 3.0, "start validator-4.beat: beat"]
    assert did(ChaosKind.KILL_BROKER, 1) == ["kill broker-2", 3.0, "start broker-2"]
    assert did(ChaosKind.EMPTY_REDIS) == ["kill redis", 3.0, "start redis"]


def test_who_is_paused_goes_on() -> None:
    for kind, name in (
        (ChaosKind.PAUSE_WORKER, "validator-2.worker"),
        (ChaosKind.PAUSE_SERVER, "validator-2.serve"),
        (ChaosKind.PAUSE_BROKER, "broker-1"),
        (ChaosKind.PAUSE_CHAIN, "anvil"),
        (ChaosKind.PAUSE_GATEWAY, "gateway"),
    ):
        assert did(kind) == [f"SIGSTOP {name}", 15.0, f"SIGCONT {name}"]


def test_a_rolling_restart_drains_and_migrates_before_it_starts() -> None:
    first = did(ChaosKind.ROLLING_RESTART)[:9]
    assert first == [
        *("start validator-1.drain: drain", "wait validator-1.drain"),
        *("end validator-1.serve", "end validator-1.worker"),
        *("start validator-1.init: init", "wait validator-1.init"),
        *("start validator-1.serve: serve", "start validator-1.worker: worker", 10.0),
    ]


def test_only_those_that_need_them_get_a_beat_and_a_clock_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    ground = a_ground()
    options = Options(chaos=(ChaosKind.KILL_WORKER, ChaosKind.CLOCK, ChaosKind.KILL_BEAT))
    prepare(options, cast(Any, type("Folder", (), {"path": tmp_path})), ground.validators)
    assert [v.name for v in ground.validators if v.clock_file is not None] == ["validator-3"]
    assert [v.name for v in ground.validators if v.has_own_beat] == ["validator-4"]
    assert ground.validators[3].process_names[-1] == "validator-4.beat"


def test_a_full_disk_is_one_into_which_nothing_can_be_written_for_a_while(tmp_path: Path) -> None:
    """A process whose files may not grow: what it has written stays, what it writes is refused until it may again."""
    code = (
        "import sys\n"
        "file = open(sys.argv[1], 'ab', 0)\n"
        "for line in sys.stdin:\n"
        "    try:\n"
        "        print(file.write(b'x'), flush=True)\n"
        "    except OSError as error:\n"
        "        print('refused', flush=True)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "file")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = []

        def write() -> None:
            print("write", file=process.stdin, flush=True)
            assert process.stdout is not None
            said.append(process.stdout.readline())

        ground = a_ground()
        child = Child("validator-2.serve", cast(Any, process), tmp_path / "log")
        ground.children.all = {"validator-2.serve": child, "validator-2.worker": child}
        write()
        for seconds in INJURIES[ChaosKind.DISK_FULL].hurt(ground):
            assert seconds == INJURIES[ChaosKind.DISK_FULL].lasts_s
            write()
        write()
        process.stdin.close()
    assert said == ["1\n", "refused\n", "1\n"]


def test_a_clock_is_as_wrong_as_its_file_says(tmp_path: Path) -> None:
    path, steady = tmp_path / "off", [0.0]
    clock = SteppedClock(path, lambda: 5_000_000_000_000, lambda: steady[0])
    assert clock.time() == 5_000.0
    seen = []
    for off_s in (3_600, 0, -3_600):
        injuries.set_clock(path, off_s)
        steady[0] += 0.05
        before = clock.time()
        steady[0] += 0.2
        seen.append((before, clock.time()))
    assert seen == [(5_000.0, 8_600.0), (8_600.0, 5_000.0), (5_000.0, 1_400.0)]


# --- recovery -------------------------------------------------------------------------------------


class Clock:
    now_ms = GENESIS
    monotonic_s = 0.0

    def pass_ms(self, ms: int) -> None:
        self.now_ms += ms
        self.monotonic_s += ms / 1000


class Operators:
    unready: dict[str, str]

    def __init__(self, clock: Clock) -> None:
        self.unready = {}
        self.statuses: dict[str, dict[str, Any]] = {name: {"now_ms": 0} for name in NAMES.values()}
        del clock

    def fetch_unready(self, _names: list[str]) -> dict[str, str]:
        return self.unready

    def fetch_statuses(self, _names: list[str]) -> dict[str, dict[str, Any]]:
        return self.statuses


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "now_ms", lambda: clock.now_ms)
    monkeypatch.setattr("validator.devnet.recovery.time.monotonic", lambda: clock.monotonic_s)
    return clock


@pytest.fixture
def chaos(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chaos]:
    monkeypatch.setattr(Chaos, "_is_broker_ready", lambda _self, _url: True)
    operators = cast(Any, Operators(clock))
    kinds = (ChaosKind.KILL_WORKER, ChaosKind.PAUSE_CHAIN)
    chaos = Chaos(kinds, a_ground(), Progress(OPTIONS, GENESIS, NAMES), operators)
    yield chaos
    chaos.close()


def run_for(chaos: Chaos, clock: Clock, seconds: float) -> list[str]:
    lines = []
    for _ in range(round(seconds * 5)):
        lines += chaos.advance()
        clock.pass_ms(200)
    return lines


def test_recovery_is_counted_from_the_end_of_the_injury_to_the_first_of_six_good_seconds(
    chaos: Chaos, clock: Clock
) -> None:
    operators = cast(Any, chaos)._operators
    operators.unready = {"validator-3": "does not answer yet"}
    assert run_for(chaos, clock, 6.0) == ["chaos: begins once all is well: validator-3: does not answer yet"]
    operators.unready = {}
    assert run_for(chaos, clock, 3.0) == []
    operators.unready = {"validator-3": "does not answer yet"}
    assert run_for(chaos, clock, 2.0) == []  # which was said
    operators.unready = {}
    (began,) = run_for(chaos, clock, 7.0)
    operators.unready = {"validator-2": "beat: looked 9 s ago"}
    (ended,) = run_for(chaos, clock, 4.0)
    assert began == "chaos: kill-worker in window 2: validator-2.worker: SIGKILL, started again after 3 s"
    assert ended == "chaos: kill-worker ends in window 2: validator-2.worker"
    operators.unready = {}
    (well,) = run_for(chaos, clock, 7.0)
    assert well.startswith("chaos: kill-worker: validator-2.worker: recovered after 2")
    assert not chaos.is_over
    lines = run_for(chaos, clock, 40.0)
    assert lines[0].startswith("chaos: pause-chain in window 4: anvil: ")
    assert chaos.is_over
    assert chaos.failures({}) == []
    first, second = chaos.summarise()
    assert (first["kind"], first["at_window"], first["seconds"]) == ("kill-worker", 2, 3.0)
    assert 2.0 <= first["recovered_after_s"] <= 2.6
    assert (second["kind"], second["seconds"]) == ("pause-chain", 15.0)
    (away,) = chaos.chain_away()
    assert away["to_ms"] - away["from_ms"] >= 15_000


def test_what_does_not_recover_and_votes_twice_fail_the_run(chaos: Chaos, clock: Clock) -> None:
    assert len(run_for(chaos, clock, 11.0)) == 1
    cast(Any, chaos)._operators.unready = {"validator-4": "database: away"}
    lines = run_for(chaos, clock, 2 * LIMIT_S + 60)
    assert "chaos: kill-worker: validator-2.worker: not recovered: validator-4: database: away" in lines
    assert chaos.is_over
    assert chaos.failures({"validator-1": {"evidence_count": 1}, "validator-2": {}}) == [
        "chaos: kill-worker: validator-2.worker: not well within 90 s: validator-4: database: away",
        "chaos: pause-chain: anvil: not well within 90 s: validator-4: database: away",
        "chaos: validator-1 has noticed double votes: 1",
    ]


def test_a_status_tells_what_is_not_well() -> None:
    well = {"now_ms": GENESIS, "oldest_due_ms": GENESIS - 1_000, "head": {"seen_ms": GENESIS - 2_000}, "causes": []}
    assert find_ill(well) == ""
    assert find_ill(None) == "does not answer"
    assert find_ill({**well, "causes": ["chain frozen: block 7"]}) == "chain frozen: block 7"
    assert find_ill({**well, "oldest_due_ms": GENESIS - 9_000}) == "work lies undone for 9 s"
    assert find_ill({**well, "oldest_due_ms": None}) == ""
    assert find_ill({**well, "head": {"seen_ms": GENESIS - 20_000}}) == "no block for 20 s"
