"""What an agreed window costs: messages, bytes and seconds, and how they grow with the committee.

``growth`` (default): one window in one process, real core, codec, signatures and reconciliation; every message between
two members is encoded and counted, and delivered at once. ``--seconds`` are those of one process doing the work of
all members, so divide them by n for one member's share.

``--loopback``: ``logstore-validator devnet`` with real processes; per window and validator the time from the cut-off to
the certificate, as their databases have it. The cut-off is window end + grace by the clock: grace is two blocks there,
so the first block at or after the window's end is earlier. ``--down`` stops one validator's processes for all windows:
they keep their sockets and say nothing, which is harder on the others than a machine that refuses connections.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from validator.net.peers import wire
from validator.ports.peers import Gossip, HeldVotes
from validator.protocol.codec.certificate import verify_quorum
from validator.protocol.codec.outcome import encode_observation
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext, sign_statement, verify_statement
from validator.protocol.consensus.driver import Ready, drive
from validator.protocol.consensus.events import (
    Event,
    GetValue,
    Observed,
    OwnVotesRecovered,
    ProposalValidated,
    ProposeValue,
    Received,
    ReceivedQuorum,
    RecoverOwnVotes,
    Resume,
    SetsHeld,
    Start,
    Tick,
    ValidateProposal,
)
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.reconcile import Records, answer, initiate, reconcile
from validator.protocol.consensus.state import InstanceState, Rules, Timeouts
from validator.protocol.consensus.views import summarise
from validator.protocol.hashing import hash_body, hash_object
from validator.protocol.model import (
    Address,
    BrokerShare,
    Digest,
    InstanceId,
    InstanceKind,
    Observation,
    Root,
    Statement,
    StatementKind,
)
from validator.protocol.quorum import quorum

SIZES = (4, 7, 13, 31)
START_MS = 1_700_000_000_000
MESSAGE_BYTES = 400
OUTCOME_BYTES = 1_500
"""An outcome of a dozen partitions, beside 32 bytes per used observation."""
CONTEXT = SigningContext(31337, Address(b"\x07" * 20))
CONFIG = hash_body(b"benchmark")
INSTANCE = InstanceId(InstanceKind.WINDOW, START_MS)


@dataclass
class Count:
    """What went over the wire: requests with their answers, and bytes both ways, by purpose."""

    requests: int = 0
    gossip_bytes: int = 0
    reconcile_bytes: int = 0
    fetched_bytes: int = 0

    @property
    def all_bytes(self) -> int:
        return self.gossip_bytes + self.reconcile_bytes + self.fetched_bytes


@dataclass
class Member:
    key: SigningKey
    records: set[tuple[int, Digest]]
    state: InstanceState
    inbox: deque[Event] = field(default_factory=deque)
    decided: bool = False

    def sign(self, statement: Statement) -> Statement:
        return sign_statement(statement, self.key, CONTEXT)


class Window:
    """One instance among ``n`` members in one process; everything that is said is encoded, counted and verified."""

    def __init__(self, n: int, records: int, difference: float, seed: int) -> None:
        rng = random.Random(seed)
        self.count = Count()
        keys = sorted((SigningKey(rng.randbytes(32)) for _ in range(n)), key=lambda k: k.address)
        committee = [key.address for key in keys]
        everything = [(START_MS + i, hash_body(rng.randbytes(16))) for i in range(records)]
        self.members: dict[Address, Member] = {}
        self.bodies: dict[Digest, bytes] = {}
        for key in keys:
            lacks = set(rng.sample(range(records), round(records * difference)))
            held = {record for i, record in enumerate(everything) if i not in lacks}
            rules = Rules.of(INSTANCE, CONFIG, committee, key.address, Timeouts())
            self.members[key.address] = Member(key, held, InstanceState(rules))
        self.union = set(everything)
        self.now_ms = START_MS + 60_000

    def run(self) -> float:
        """Seconds until everybody has decided."""
        started = time.perf_counter()
        for address, member in self.members.items():
            body = encode_observation(_observation(address, member, list(self.members)))
            digest = hash_object(body)
            self.bodies[digest] = body
            member.inbox += [Resume(), Start(), Observed(digest), Tick()]
        while not all(m.decided for m in self.members.values()):
            busy = [m for m in self.members.values() if m.inbox]
            if not busy and not self._wake_leaders():
                raise RuntimeError("nobody has anything to do, and not all have decided")
            for member in busy:
                self._turn(member)
        return time.perf_counter() - started

    def _turn(self, member: Member) -> None:
        for _ in range(len(member.inbox)):
            event = member.inbox.popleft()
            if isinstance(event, Received) and event.statement.signer != member.key.address:
                verify_statement(event.statement, CONTEXT)
            elif isinstance(event, ReceivedQuorum):
                rules = member.state.rules
                verify_quorum(event.quorum, CONFIG, INSTANCE, rules.committee, CONTEXT)
            member.state, answers = drive(member.state, (event,), self.now_ms, _Worker(self, member))
            member.inbox += answers

    def _wake_leaders(self) -> bool:
        """All observations have arrived: the leader fetches the sets and looks again."""
        for member in self.members.values():
            held = self._sets_held(member) if member.state.leader == member.key.address else None
            if held is not None and held.observed - member.state.eligibility.observed:
                member.inbox.append(held)
                return True
        return False

    def send(self, member: Member, ready: Ready) -> None:
        for statement in ready.statements_to_send:
            bodies = tuple(b for b in [self.bodies.get(statement.value)] if b is not None and _carries(statement))
            self._broadcast(member, Gossip(statements=(statement,), bodies=bodies), Received(statement))
        for votes in ready.quorums_to_send:
            self._broadcast(member, Gossip(quorums=(votes,)), ReceivedQuorum(votes))

    def ask(self, member: Member, ready: Ready) -> list[Event]:
        answers: list[Event] = []
        for question in ready.questions:
            if isinstance(question, ValidateProposal):
                self._obtain(member, ready.state.leader)
                answers.append(ProposalValidated(question.value, question.round, Answer.YES, Answer.YES))
            elif isinstance(question, GetValue):
                body = bytes(OUTCOME_BYTES + 32 * len(self.members))
                value = hash_body(body)
                self.bodies[value] = body
                answers.append(ProposeValue(question.round, value))
            elif isinstance(question, RecoverOwnVotes):
                for other in self._others(member):
                    self._ask(wire.encode_held(HeldVotes(CONFIG, INSTANCE, summarise(ready.state))), b"")
                    answers.append(OwnVotesRecovered(other))
        return answers

    def _others(self, member: Member) -> list[Address]:
        return [a for a in self.members if a != member.key.address]

    def _broadcast(self, member: Member, gossip: Gossip, event: Event) -> None:
        size = len(wire.encode_gossip(gossip))
        for other in self._others(member):
            self.count.requests += 1
            self.count.gossip_bytes += size
            self.members[other].inbox.append(event)

    def _ask(self, question: bytes, reply: bytes) -> None:
        self.count.requests += 1
        self.count.gossip_bytes += len(question) + len(reply)

    def _sets_held(self, leader: Member) -> SetsHeld:
        observed = {
            s.signer for s in leader.state.votes.statements() if s.kind is StatementKind.OBSERVATION
        } - leader.state.eligibility.observed
        for address in sorted(observed):
            if address != leader.key.address:
                self._compare(leader, self.members[address].records)
        return SetsHeld(frozenset(observed), frozenset(observed))

    def _obtain(self, member: Member, source: Address | None) -> None:
        if source is not None and source != member.key.address:
            self._compare(member, self.members[source].records)

    def _compare(self, member: Member, theirs: set[tuple[int, Digest]]) -> None:
        """Entries first; where roots differ one session, then what is missing in one page. The result is the union."""
        self.count.requests += 1
        self.count.reconcile_bytes += 12 * 90
        if member.records == theirs:
            return
        own, other = Records(member.records), Records(theirs)
        message: bytes | None = initiate(own)
        need: list[Digest] = []
        while message is not None:
            reply = answer(other, message)
            self.count.requests += 1
            self.count.reconcile_bytes += len(message) + len(reply)
            message, _, only_theirs = reconcile(own, reply)
            need += only_theirs
        if need:
            self.count.requests += 1
            self.count.fetched_bytes += len(need) * (34 + MESSAGE_BYTES)
            wanted = set(need)
            member.records |= {record for record in theirs if record[1] in wanted}


class _Worker:
    """What the driver calls for one member; nothing is saved here."""

    def __init__(self, window: Window, member: Member) -> None:
        self.window = window
        self.member = member
        self.sign = member.sign

    def persist(self, ready: Ready) -> None:
        self.member.decided = ready.state.decided is not None

    def send(self, ready: Ready) -> None:
        self.window.send(self.member, ready)

    def ask(self, ready: Ready) -> list[Event]:
        return self.window.ask(self.member, ready)


def _carries(statement: Statement) -> bool:
    return statement.kind in (StatementKind.OBSERVATION, StatementKind.PROPOSAL)


def _observation(address: Address, member: Member, brokers: list[Address]) -> Observation:
    return Observation(
        instance=INSTANCE,
        set_root=Root(hash_body(b"".join(sorted(leaf for _, leaf in member.records)))),
        count=len(member.records),
        signed_bytes=MESSAGE_BYTES * len(member.records),
        shares=tuple(BrokerShare(broker, 1 << 20, 0) for broker in sorted(brokers)[:3]),
        observer=address,
    )


def print_growth(records: int, rounds: int) -> None:
    print(f"one window of {records} messages; kB and requests of all members together, seconds best of {rounds}")
    print(
        f"{'n':>3} {'quorum':>6} {'differ':>6} {'requests':>8} {'votes kB':>9} {'sets kB':>8} {'msgs kB':>8} "
        f"{'kB/member':>9} {'s':>7} {'s/member':>8}"
    )
    for difference in (0.0, 0.01):
        for n in SIZES:
            taken, count = [], Count()
            for number in range(rounds):
                window = Window(n, records, difference, number)
                taken.append(window.run())
                count = window.count
            print(
                f"{n:3} {quorum(n):6} {difference:6.0%} {count.requests:8} {count.gossip_bytes / 1e3:9.1f} "
                f"{count.reconcile_bytes / 1e3:8.1f} {count.fetched_bytes / 1e3:8.1f} "
                f"{count.all_bytes / n / 1e3:9.1f} {min(taken):7.3f} {min(taken) / n:8.4f}"
            )


# --- loopback -------------------------------------------------------------------------------------------


def measure_loopback(windows: int, *, down: bool) -> list[float]:
    """Seconds from cut-off to certificate of every window and validator of one devnet run."""
    with tempfile.TemporaryDirectory(prefix="agreement-") as folder:
        data = Path(folder) / "run"
        program = [str(Path(sys.executable).parent / "logstore-validator"), "devnet", "--windows", str(windows)]
        run = subprocess.Popen(
            [*program, "--data", str(data), "--flower", "none", "--rate", "10"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stopper = threading.Thread(target=_stop_one, args=(run, data, windows), daemon=True) if down else None
        if stopper is not None:
            stopper.start()
        try:
            run.wait()
        finally:
            if run.poll() is None:
                run.send_signal(signal.SIGINT)
                run.wait()
        if run.returncode not in (0, 1):
            raise RuntimeError(f"the network ended with status {run.returncode}")
        return read_times(data, windows, without="validator-4" if down else None)


def read_times(data: Path, windows: int, without: str | None = None) -> list[float]:
    """The same from the folder of a run that was kept."""
    (network_file, *_) = sorted(data.rglob("network.toml"))
    network = tomllib.loads(network_file.read_text())
    parameters = network["sets"][0]
    last_ms = network["genesis_ms"] + windows * parameters["window_ms"]
    seconds = []
    for file in sorted(data.rglob("*.sqlite")):
        if without is not None and without in str(file):
            continue
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
            query = (
                "SELECT instance_number, decided_ms FROM rounds WHERE instance_kind = 1 AND decided_ms IS NOT NULL"
                " AND instance_number < ?"
            )
            for start_ms, decided_ms in connection.execute(query, (last_ms,)):
                seconds.append((decided_ms - start_ms - parameters["window_ms"] - parameters["grace_ms"]) / 1000)
    return seconds


def _stop_one(run: subprocess.Popen[bytes], data: Path, windows: int) -> None:
    """Stop the processes of the fourth validator from the first window's start to the last one's decision."""
    while not (found := sorted(data.rglob("network.toml"))):
        if run.poll() is not None:
            return
        time.sleep(0.2)
    network = tomllib.loads(found[0].read_text())
    start_s = network["genesis_ms"] / 1000
    window_s = network["sets"][0]["window_ms"] / 1000
    time.sleep(max(0.0, start_s - time.time()))
    stopped = [pid for pid in _descendants(run.pid) if "validator-4" in _words(pid)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(max(0.0, start_s + (windows + 1) * window_s + 4 - time.time()))
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found[1:]


def _words(pid: int) -> str:
    """Command line and environment of one of our own processes."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace") + Path(f"/proc/{pid}/environ").read_text(
            errors="replace"
        )
    except OSError:
        return ""


def print_times(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p90 = ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)]
    print(f"{name:24} {len(ordered):5} decisions  median {statistics.median(ordered):5.2f} s  p90 {p90:5.2f} s")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks agreement", description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=5_000, help="messages of the window")
    parser.add_argument("--rounds", type=int, default=2, help="repetitions, of which the fastest counts")
    parser.add_argument("--loopback", action="store_true", help="measure four validators as real processes")
    parser.add_argument("--windows", type=int, default=30, help="windows of a loopback run")
    parser.add_argument("--down", action="store_true", help="with one of the four stopped")
    parser.add_argument("--read", type=Path, default=None, help="only read the folder of a devnet run that was kept")
    options = parser.parse_args(arguments)
    if options.read is not None:
        print_times("kept run", read_times(options.read, options.windows))
    elif options.loopback:
        name = "four, one of them down" if options.down else "four, all alive"
        print_times(name, measure_loopback(options.windows, down=options.down))
    else:
        print_growth(options.records, options.rounds)
    return 0
