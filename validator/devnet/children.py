"""The processes of the network: started in groups of their own, ended together, and never outliving us.

Each child asks the kernel to be killed when its parent dies, whatever kills that. The kernel takes the *thread* that
forked for the parent, so children are started from the main thread only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from validator.devnet.display import clean
from validator.protocol.errors import InvariantError, ValidatorError
from validator.setup.console import die_with_parent

STOP_S = 5.0
SERVER_STOP_S = 2.0
LAST_WORDS_BYTES = 8_000


class ChildEnded(ValidatorError):
    """A process of the network ended by itself. ``name``, ``status``."""


@dataclass(slots=True)
class Child:
    """One process and its log.

    ``may_end``: it is expected to end with status 0 by itself. ``is_server``: others talk to it until their end.
    ``words``, ``environment``: what it was started with.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    may_end: bool = False
    is_server: bool = False
    words: Sequence[str] = ()
    environment: Mapping[str, str] | None = None

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None


@dataclass(slots=True)
class Children:
    """All processes of a run: their logs, their working directory, what each gets beside its own variables.

    The working directory is not the user's, so that no ``.env`` that lies there changes a validator.
    """

    logs: Path
    home: Path
    environment: Mapping[str, str]
    all: dict[str, Child] = field(default_factory=dict)

    def start(
        self,
        name: str,
        words: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        sockets: Sequence[int] = (),
        may_end: bool = False,
        is_server: bool = False,
    ) -> Child:
        """Start a program in its own session, output appended to its log; ``sockets`` are descriptors it inherits.

        Raises:
            ChildEnded: it does not start at all.
        """
        if threading.current_thread() is not threading.main_thread():
            raise InvariantError("children are started from the main thread")
        log = self.logs / f"{name}.log"
        with log.open("ab") as sink:
            try:
                process = subprocess.Popen(
                    list(words),
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    cwd=self.home,
                    env={**self.environment, **(environment or {})},
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                    pass_fds=tuple(sockets),
                )
            except OSError as error:
                raise ChildEnded(f"{name} does not start: {error.strerror}", name=name, status=None) from error
        child = Child(name, process, log, may_end, is_server, words, environment)
        self.all[name] = child
        return child

    def check(self) -> None:
        """Raises ChildEnded for a process that is gone and should not be."""
        for child in self.all.values():
            status = child.process.poll()
            if status is not None and not (child.may_end and status == 0):
                raise ChildEnded(
                    f"{child.name} ended with {describe_exit(status)}: {last_words(child.log)}",
                    name=child.name,
                    status=status,
                )

    def wait_for(self, names: Sequence[str], limit_s: float) -> None:
        """Wait for children that end by themselves. Raises ChildEnded: another status than 0, or no end in time."""
        end = time.monotonic() + limit_s
        while True:
            self.check()
            running = [name for name in names if self.all[name].is_running]
            if not running:
                return
            if time.monotonic() > end:
                raise ChildEnded(f"{running[0]} has not ended within {limit_s:.0f} s", name=running[0], status=None)
            time.sleep(0.05)

    def kill(self, names: Sequence[str]) -> None:
        """SIGKILL to the process groups of these children, and forget them."""
        for name in names:
            _signal_group(self.all[name].process, signal.SIGKILL)
        for name in names:
            self.all.pop(name).process.wait(STOP_S)

    def end(self, names: Sequence[str], limit_s: float) -> None:
        """SIGTERM to these children, SIGKILL to whoever is left after a while, and forget them."""
        for name in names:
            _signal_group(self.all[name].process, signal.SIGTERM)
        end = time.monotonic() + limit_s
        for name in names:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.all[name].process.wait(max(0.0, end - time.monotonic()))
        self.kill(names)

    def start_again(self, child: Child) -> None:
        """Start what was killed once more, with the same words; for children that inherit no sockets."""
        self.start(
            child.name, child.words, environment=child.environment, may_end=child.may_end, is_server=child.is_server
        )

    def signal(self, names: Sequence[str], number: signal.Signals) -> None:
        """A signal to the process groups of these children."""
        for name in names:
            _signal_group(self.all[name].process, number)

    def stop(self) -> None:
        """SIGTERM to all, servers last, then SIGKILL to whoever is left; returns when all are gone."""
        for is_server, limit_s in ((False, STOP_S), (True, SERVER_STOP_S)):
            ending = [child for child in self.all.values() if child.is_server is is_server]
            for child in ending:
                _signal_group(child.process, signal.SIGTERM)
                _signal_group(child.process, signal.SIGCONT)  # who is paused would not hear it
            end = time.monotonic() + limit_s
            for child in ending:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(0.0, end - time.monotonic()))
            for child in ending:
                _signal_group(child.process, signal.SIGKILL)  # also what a leader that is gone left in its group
                child.process.wait()
        self.all.clear()

    def pids(self) -> list[int]:
        """Process ids of all children and their descendants."""
        return find_descendants([child.process.pid for child in self.all.values() if child.is_running])


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def describe_exit(status: int) -> str:
    """Exit status or signal in words."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def last_words(log: Path) -> str:
    """The last line of a log that says something, made safe to print."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, log.stat().st_size - LAST_WORDS_BYTES))
            lines = [line.strip() for line in source.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return clean(lines[-1], 300) if lines else "it said nothing"


# --- memory ---------------------------------------------------------------------------------------


def find_descendants(roots: Sequence[int]) -> list[int]:
    """The given processes and all below them, from /proc."""
    below: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = Path("/proc", entry, "stat").read_text()
            below.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found = list(roots)
    for pid in found:
        found += [child for child in below.get(pid, ()) if child not in found]
    return found


def measure_pss(pids: Sequence[int]) -> int:
    """Bytes of proportional set size of processes; shared pages count once in the sum. 0 where Linux does not say."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
                    break
    return total


def measure_by_process(children: Children) -> dict[str, int]:
    """PSS of each running child and of what it has started; what of that is Node's, under a name of its own."""
    sizes: dict[str, int] = {}
    for child in children.all.values():
        if not child.is_running:
            continue
        for pid in find_descendants([child.process.pid]):
            is_node = pid != child.process.pid and _program_of(pid) == "node"
            name = f"{child.name} (node)" if is_node else child.name
            sizes[name] = sizes.get(name, 0) + measure_pss([pid])
    return sizes


def _program_of(pid: int) -> str:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


class MemoryWatch:
    """Largest sum of PSS seen, sampled now and then by a thread."""

    def __init__(self, children: Children, pause_s: float = 5.0) -> None:
        self.most_bytes = 0
        self._children = children
        self._pause_s = pause_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="memory")
        self._thread.start()

    def sample(self) -> int:
        """Measure now: our own process counts too."""
        now = measure_pss([os.getpid(), *self._children.pids()])
        self.most_bytes = max(self.most_bytes, now)
        return now

    def end(self) -> None:
        """No more samples; call before other work is begun whose memory is not the network's."""
        self._ended.set()
        self._thread.join(2)

    def _watch(self) -> None:
        while not self._ended.wait(self._pause_s):
            with contextlib.suppress(RuntimeError):  # the table of children changed under us: next time
                self.sample()
