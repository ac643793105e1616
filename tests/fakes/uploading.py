"""A small network about to upload one bundle to a real gateway, a process of its own; and what may go wrong there.

The gateway counts the headers that were paid for each bundle root, and keeps the wallets' balances. It mines a block
for each half second of the network's clock. Two of the four validators have wallets.

The worker of the first in turn can be a process of its own, forked like a child of Celery's pool: with connections of
its own, the database and the clock shared. It gets a real signal where a test wants it.
"""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from tests.fakes.small_network import STAGES, Member, SmallNetwork
from tests.gateway_process import GatewayProcess
from validator.net.arweave.gateway import Gateway, Limits
from validator.net.arweave.gateways import Gateways
from validator.net.arweave.storage import ArweaveStorage
from validator.net.arweave.wallet import ArweaveWallet
from validator.net.http.client import Answer
from validator.ports.queue import Task
from validator.ports.states import UploadState
from validator.ports.storage import StorageStatus
from validator.ports.stored import StoredUpload
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.model import StorageId
from validator.protocol.quorum import quorum
from validator.steps.pipeline import perform

AR = 10**12
IMPATIENT = Limits(
    connect_s=2, read_s=1, request_s=1.5, call_s=3, download_s=3, seed_s=5, attempts=2, first_wait_s=0.01, open_s=0.1
)
IN_VAIN = replace(IMPATIENT, request_s=0.1, call_s=0.25, download_s=0.1)
"""While nothing answers at all: however slow the machine is, the end of these is the only one there can be."""
BLOCK_MS = 500
LONG_MS = 14_000
"""Longer than the stage of ten seconds."""
CHUNK = "chunk "
"""Begins the name of a point: just before the chunk of that number is sent."""
Struck = Callable[[], bool]
"""Whether what was to go wrong did."""


class Miner:
    """Mines as the network's clock goes, whenever somebody asks for a status."""

    def __init__(self, network: SmallNetwork, gateway: GatewayProcess) -> None:
        self.network = network
        self.gateway = gateway
        self.is_stopped = False
        self._next_ms = 0

    def tick(self) -> None:
        if self.network.clock.now_ms() >= self._next_ms and not self.is_stopped:
            self._next_ms = self.network.clock.now_ms() + BLOCK_MS
            self.gateway.mine()


class MinedStorage(ArweaveStorage):
    """The real adapter; says which chunk it is about to send."""

    def __init__(self, urls: Sequence[str], wallet: ArweaveWallet | None, miner: Miner, **options: Any) -> None:
        super().__init__(urls, wallet, reward_cap=AR, **{"limits": IMPATIENT, "root_wait_s": 0.01, **options})
        self.gateways.close()
        self.gateways = Gateways([TalkativeGateway(url, self) for url in urls])
        self.miner = miner
        self.on_chunk: Callable[[str], None] = lambda _: None
        self.chunks_sent = 0

    def wait_at_most(self, limits: Limits) -> None:
        """From now on, for each request."""
        for gateway in self.gateways:
            gateway.limits = limits

    def fetch_status(self, storage_id: StorageId) -> StorageStatus:
        self.miner.tick()
        return super().fetch_status(storage_id)


class TalkativeGateway(Gateway):
    """Tells its storage of each chunk before it is sent."""

    def __init__(self, url: str, storage: MinedStorage) -> None:
        super().__init__(url, IMPATIENT)
        self._storage = storage

    def post(
        self, path: str, body: bytes, *, max_bytes: int, accept: tuple[int, ...], has_effect: bool = True
    ) -> Answer:
        if path == "/chunk":
            self._storage.on_chunk(f"{CHUNK}{self._storage.chunks_sent}")
            self._storage.chunks_sent += 1
        return super().post(path, body, max_bytes=max_bytes, accept=accept, has_effect=has_effect)


@dataclass
class Uploading:
    """A network about to upload one bundle, and its gateway."""

    network: SmallNetwork
    gateway: GatewayProcess
    miner: Miner
    first: Member
    second: Member
    stranger: ArweaveStorage
    wallets: Sequence[ArweaveWallet]
    """Of the first and of the second in turn."""
    before: dict[str, Any] = field(default_factory=dict)

    @property
    def owners(self) -> list[str]:
        return [encode_base64url(wallet.address) for wallet in self.wallets]

    # --- where something goes wrong ---

    def at(self, call: str, action: Callable[[], object], *, times: int = 1) -> Struck:
        """Just before the call that the first in turn makes, for the so many-th time, do something."""
        left = list(range(times))

        def reach(who: Member, task: str, _key: str, at: str) -> bool:
            if left and who is self.first and task.startswith("bundle.") and at.startswith(call):
                left.pop()
                if not left:
                    action()
            return False

        self.network.kill_at = reach
        return lambda: not left

    def die(self, call: str) -> Struck:
        """The first in turn is killed there and never returns."""
        died: list[Member] = []

        def reach(who: Member, task: str, _key: str, at: str) -> bool:
            return not died and who is self.first and task == Task.BUNDLE_UPLOAD and at.startswith(call)

        def stay_away(member: Member, _entry: object) -> None:
            member.away = True
            died.append(member)

        self.network.kill_at, self.network.on_killed = reach, stay_away
        return lambda: bool(died)

    def fail(self, kind: str, path: str, *, times: int = 2, **rule: Any) -> Struck:
        """Requests go wrong at the gateway."""
        before = self.gateway.stats()["faults"].get(kind, 0)
        self.gateway.fail(kind, path, times=times, **rule)
        return lambda: self.gateway.stats()["faults"].get(kind, 0) > before

    def let_pass(self, milliseconds: int) -> None:
        """The first in turn stands still, the others go on."""
        self.first.idle = True
        self.run_for(milliseconds)
        self.first.idle = False

    def run_for(self, milliseconds: int) -> None:
        end_ms = self.network.clock.now_ms() + milliseconds
        self.network.run(lambda: self.network.clock.now_ms() >= end_ms)

    def stop_gateway(self) -> None:
        """It is stopped for longer than a stage. Who asks it meanwhile waits in vain, so nobody waits long."""
        self.miner.is_stopped = True
        storages = [s for m in self.network.members if isinstance(s := m.storage, MinedStorage)]
        with self.gateway.stopped():
            for storage in storages:
                storage.wait_at_most(IN_VAIN)
            self.let_pass(LONG_MS)
        for storage in storages:
            storage.wait_at_most(IMPATIENT)
        self.miner.is_stopped = False

    # --- a worker that is a process of its own ---

    def signal_worker(self, signal_number: signal.Signals, point: str, *, times: int = 1) -> Struck:
        """The worker gets the signal just before a call of a port, or a chunk, for the so many-th time.

        One that is stopped goes on after longer than a stage. Whatever became of it, another run follows.
        """
        struck: list[str] = []

        def reach(who: Member, task: str, key: str, _at: str) -> bool:
            if struck or who is not self.first or task != Task.BUNDLE_UPLOAD:
                return False
            pid = self._fork(lambda: self._work(key, signal_number, point, times))
            _, status = os.waitpid(pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                struck.append(point)
                self.let_pass(LONG_MS)
                os.kill(pid, signal.SIGCONT)
                _, status = os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                struck.append(point)
                assert os.WTERMSIG(status) == signal_number
            else:
                assert os.WEXITSTATUS(status) == 0, "the worker failed; its traceback is in the captured output"
            return True

        self.network.kill_at = reach
        return lambda: bool(struck)

    def _fork(self, run: Callable[[], None]) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: nothing of theirs is used
            pid = os.fork()
        if pid == 0:
            _end_process_after(run)
        return pid

    def _work(self, key: str, signal_number: signal.Signals, point: str, times: int) -> None:
        """In the child: the task as Celery's children run it."""
        for member in self.network.members:
            member.database.forget_connections()
        left = iter(range(times))

        def reach(at: str) -> bool:
            if at.startswith(point) and next(left, None) == times - 1:
                os.kill(os.getpid(), signal_number)
            return False

        storage = MinedStorage([self.gateway.url], self.wallets[0], self.miner)
        storage.on_chunk = reach  # type: ignore[assignment]
        self.miner.is_stopped = True  # its connection is the parent's
        self.first.storage = storage  # type: ignore[assignment]
        for member in self.network.members:
            member.restart()
        self.first.fuse.burns = reach
        perform(self.first.context, Task.BUNDLE_UPLOAD, STAGES[Task.BUNDLE_UPLOAD], key)

    # --- how it must end ---

    def _uploads(self, number: int) -> list[StoredUpload]:
        return self.network.members[number].store.bundles.load_uploads(0)

    def require_paid_once(self) -> dict[str, Any]:
        """One header is paid for, by the gateway's count and by balances; all is there, and a quorum has read it."""
        self.network.run_to_final(limit_s=120)
        stats = self.gateway.stats()
        bundle = self.second.store.bundles.load_bundle(0)
        assert bundle is not None
        assert bundle.root is not None
        lines = [
            t for t in stats["transactions"] if t["bundle_root"] == bundle.root.hex() and t["owner"] in self.owners
        ]
        paid = [line for line in lines if line["height"] is not None]
        assert len(paid) == len(lines) == 1
        assert paid[0]["complete"]
        turns = {self.first.number, self.second.number}
        uploads = [(self.network.members[n], upload) for n in turns for upload in self._uploads(n)]
        ((payer, own),) = [(m, u) for m, u in uploads if encode_base64url(u.prepared.storage_id) == paid[0]["id"]]
        assert payer.away or own.state == UploadState.VERIFIED
        spent = sum(int(self.before["balances"][o]) - int(stats["balances"][o]) for o in self.owners)
        assert spent == own.prepared.reward
        report = self.network.world.reports[0]
        assert encode_base64url(report.storage_id) == paid[0]["id"]
        query = f"SELECT state FROM announcements WHERE storage_id = x'{report.storage_id.hex()}'"
        states = [member.rows(query) for member in self.network.members]
        assert states.count([("verified",)]) >= quorum(len(states)), "who was slower follows the report"
        by = "first in turn" if report.uploader == self.first.address else "second in turn"
        return {"headers paid": len(paid), "winston spent": spent, "reported": by, "state": own.state.value}


def _end_process_after(run: Callable[[], None]) -> NoReturn:
    """Whatever happens: nothing of the process that was forked goes on here."""
    status = 1
    try:
        run()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
