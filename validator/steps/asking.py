"""Asking peers: nobody waits for the silent, nobody is asked twice at once, and no answer is thrown away."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from validator.log import get_logger
from validator.ports.clock import Clock
from validator.ports.queue import Task, Tasks
from validator.protocol.errors import TransientError, ValidatorError
from validator.protocol.model import Address, Digest, InstanceId, Root

log = get_logger(__name__)
T = TypeVar("T")

GATHER_S = 0.5
MAX_OWED = 4
MAX_SESSIONS = 2
"""Threads that may wait for the sets of one member: one that answers ever so slowly must not take all of them."""
SESSION_MS = 60_000
"""What one comparison of sets may take: 16 questions and answers, where the member means well."""
MAX_ASKED = 1_024
"""Questions remembered as under way; above it, those are forgotten that were answered and that nobody came back to."""
MAX_FETCHES = 4_096
FETCH_AGAIN_MS = 1_000
WORKERS = 16


class Wanted(StrEnum):
    """What can be fetched from a peer."""

    OBSERVATION = "observation"
    SET = "set"
    VALUE = "value"
    """An outcome, with the observations it names and the set behind it."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """What to fetch for an instance, and from whom; as text it is the key of ``round.obtain``."""

    instance: InstanceId
    what: Wanted
    digest: bytes
    sources: tuple[Address, ...]

    def __str__(self) -> str:
        return f"{self.instance}/{self.what}/{self.digest.hex()}/{','.join(m.hex() for m in self.sources)}"

    @classmethod
    def parse(cls, key: str) -> Fetch:
        """Raises ValueError: none of ours."""
        instance, what, digest, members = key.split("/")
        sources = tuple(Address(bytes.fromhex(member)) for member in members.split(",") if member)
        return cls(InstanceId.parse(instance), Wanted(what), bytes.fromhex(digest), sources)


class Asking:
    """What this process asks of its peers: who owes an answer, who is being fetched from, what is queued to be fetched.

    ``askers``: threads of their own for questions, so that slow answers hold up no broadcast; None: ``workers``.
    """

    def __init__(
        self,
        clock: Clock,
        tasks: Tasks,
        workers: ThreadPoolExecutor | None = None,
        askers: ThreadPoolExecutor | None = None,
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._workers = workers or ThreadPoolExecutor(WORKERS, thread_name_prefix="steps")
        self._askers = askers or self._workers
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, Address], Future[Any]] = {}
        self._sessions: Counter[Address] = Counter()
        self._fetches: dict[str, int] = {}

    def gather(
        self, subject: str, ask: Callable[[Address], T], members: Sequence[Address], wait_s: float = GATHER_S
    ) -> list[tuple[Address, T | ValidatorError]]:
        """Ask all members about a subject; what came within ``wait_s``, answer or error: nobody waits for the silent.

        Who has not answered yet is not asked again: the answer comes with a later call. So slow peers, or a slow
        machine, are asked less often, and no answer is thrown away that somebody has worked for. A member that owes
        ``MAX_OWED`` answers is asked nothing more: one that hangs must not take all threads.
        """

        def run(member: Address) -> T | ValidatorError:
            try:
                return ask(member)
            except ValidatorError as error:
                return error

        with self._lock:
            if len(self._asked) > MAX_ASKED:
                self._asked = {key: future for key, future in self._asked.items() if not future.done()}
            owed = Counter(member for (_, member), future in self._asked.items() if not future.done())
            known = {
                member: self._asked.get((subject, member))
                for member in members
                if (subject, member) in self._asked or owed[member] < MAX_OWED
            }
        asked = {member: future or self._askers.submit(run, member) for member, future in known.items()}
        with self._lock:
            self._asked.update({(subject, member): future for member, future in asked.items()})
        wait(asked.values(), timeout=wait_s)
        answered = [member for member, future in asked.items() if future.done()]
        with self._lock:
            for member in answered:
                self._asked.pop((subject, member), None)
        return [(member, asked[member].result()) for member in answered]

    def owed(self) -> list[tuple[str, Address]]:
        """The questions, by subject and member, whose answers nobody has come back for."""
        with self._lock:
            return list(self._asked)

    @contextmanager
    def session_with(self, member: Address) -> Iterator[Callable[[], bool]]:
        """For fetching a set from one member; yields whether its time is up.

        Raises:
            TransientError: ``MAX_SESSIONS`` threads of this process wait for that member already.
        """
        with self._lock:
            if self._sessions[member] >= MAX_SESSIONS:
                raise TransientError(f"0x{member.hex()}: {MAX_SESSIONS} sessions with it are under way", member=member)
            self._sessions[member] += 1
        begun_ms = self._clock.now_ms()
        try:
            yield lambda: not 0 <= self._clock.now_ms() - begun_ms <= SESSION_MS
        finally:
            with self._lock:
                self._sessions[member] -= 1

    def fetch_soon(self, instance: InstanceId, what: Wanted, digest: Digest | Root, sources: Sequence[Address]) -> None:
        """Queue ``round.obtain`` for a set or value, once per second and source list at most."""
        key = str(Fetch(instance, what, digest, tuple(sources)))
        now_ms = self._clock.now_ms()
        with self._lock:
            if self._fetches.get(key, 0) > now_ms:
                return
            if len(self._fetches) > MAX_FETCHES:
                self._fetches = {k: t for k, t in self._fetches.items() if t > now_ms}
            self._fetches[key] = now_ms + FETCH_AGAIN_MS
        self._tasks.enqueue(Task.ROUND_OBTAIN, key)

    def in_background(self, call: Callable[..., object], *arguments: object) -> None:
        """Run a call whose result nobody waits for; its failure is logged."""

        def run() -> None:
            try:
                call(*arguments)
            except ValidatorError as error:
                log.debug("background.failed", call=getattr(call, "__name__", "call"), reason=str(error))

        self._workers.submit(run)
