"""What stream partitions cost in which nobody speaks: a node of the real network, and the broker's ingest behind it.

alone        nobody else is in the parts, as in those of a stream that was just registered
neighbours   another node, in a program of its own, has joined the same parts, so each has a neighbour

CPU and memory (PSS) are those of the bridge's program and of this process, which holds a broker and what measures it:
seconds of CPU by seconds of a watch, so what runs beside is not counted, but a machine that is short of processors
makes the nodes wait for each other's answers. Each part does most of its work once a minute and some more in the
minute after its join: the watch is a minute long, and begins a minute after the last join. Parts that found no
neighbour in time are counted as *lonely*, at most so many at any time of the watch. A part of ``broker``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from tests.broker_parts import BrokerParts
from tests.streamr_network import run_streamr_network
from validator.broker.ingest import JOINED_AT_ONCE, Ingest
from validator.net.streamr.frames import State
from validator.net.streamr.node_process import NodeBus
from validator.ports.bus import MessageBus
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import StreamPart

WATCHED_S = 60.0
"""Timers of the network's node ring once a minute, each at its own second."""
LOOKED_S = 5.0
AFTER_JOIN_S = 65.0
"""So long the node looks for others of a part that it has joined, six times."""
MOST_S = 600.0
"""For joins, and again for neighbours: a node on a busy machine gets what it gets, and the figures say so."""
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(parts: int, folder: Path) -> dict[str, float]:
    return asyncio.run(_measure(parts, folder))


async def _ask(bus: NodeBus) -> State | None:
    """None: the node is too busy to say."""
    try:
        return await bus.info()
    except TransientError:
        return None


async def _join(bus: MessageBus, parts: Sequence[StreamPart], end_s: float) -> int:
    """How many were joined in time: some at once, and again where the node was too busy to answer."""
    joined = 0
    while joined < len(parts) and time.monotonic() < end_s:
        some = parts[joined : joined + JOINED_AT_ONCE]
        with contextlib.suppress(TransientError, RemoteFault):  # a call's time is over, or nobody is reached yet
            await bus.join(some)
            joined += len(some)
    return joined


async def _meet(bus: NodeBus, other: NodeBus, part: Sequence[StreamPart]) -> None:
    """Until both are in the network: parts that a node joins before it reaches anybody stay lonely for long."""
    end_s = time.monotonic() + MOST_S
    for each in (bus, other):
        await _join(each, part, end_s)
    while time.monotonic() < end_s:
        state = await _ask(bus)
        if state is not None and not state.lonely:
            return
        await asyncio.sleep(1.0)


async def _settle(bus: NodeBus, pid: int, *, neighbours: bool) -> None:
    """Until every part is joined (and has a neighbour), or the time is over, and a minute more."""
    end_s = time.monotonic() + MOST_S
    before = cpu_s(pid)
    while time.monotonic() < end_s:
        await asyncio.sleep(LOOKED_S)
        now, state = cpu_s(pid), await _ask(bus)
        print(f"  {_say(state)}, {(now - before) / LOOKED_S:.2f} cores", flush=True)
        before = now
        if state is not None and not state.waiting and not (neighbours and state.lonely):
            break
    await asyncio.sleep(AFTER_JOIN_S)


def _say(state: State | None) -> str:
    return "no answer" if state is None else f"{state.waiting} to be joined, {state.lonely} without a neighbour"


async def _watch(bus: NodeBus, pids: dict[str, int], prefix: str) -> dict[str, float]:
    """Figures of one watch."""
    before, began, lonely = {name: cpu_s(pid) for name, pid in pids.items()}, time.monotonic(), 0
    while time.monotonic() - began < WATCHED_S:
        await asyncio.sleep(LOOKED_S)
        state = await _ask(bus)
        lonely = max(lonely, state.lonely if state else 0)
    watched_s = time.monotonic() - began
    found = {f"{prefix}_lonely": float(lonely)}
    for name, pid in pids.items():
        found[f"{prefix}_{name}_cores"] = (cpu_s(pid) - before[name]) / watched_s
        found[f"{prefix}_{name}_mib"] = pss_mib(pid)
    for unit in ("cores", "mib"):
        found[f"{prefix}_{unit}"] = found[f"{prefix}_bridge_{unit}"] + found[f"{prefix}_python_{unit}"]
    return found


async def _measure(count: int, folder: Path) -> dict[str, float]:
    streams = {f"0x{'cc' * 20}/idle/{number:05}": 1 for number in range(count)}
    parts = BrokerParts(folder, streams=streams)
    async with run_streamr_network() as network:
        bus, other = await network.launch(), await network.launch()  # a program each, and the entry point's is idle
        ingest = Ingest(bus, parts.admission, parts.chain, max_parts=count)
        running = asyncio.create_task(ingest.run())
        wanted = parts.chain.parts()[:count]
        await _meet(bus, other, wanted[:1])
        pids = {"bridge": bus.process.pid or 0, "python": os.getpid(), "other": other.process.pid or 0}
        began = time.monotonic()
        while ingest.joined < count and time.monotonic() < began + MOST_S:
            await ingest.follow_registry()  # takes up where a busy node's time was over
        await _settle(bus, pids["bridge"], neighbours=False)
        found = {"idle_parts": float(ingest.joined), "idle_settled_after_s": time.monotonic() - began}
        found |= await _watch(bus, pids, "idle_alone")
        began = time.monotonic()
        found["idle_other_parts"] = float(await _join(other, wanted, began + MOST_S))
        await _settle(bus, pids["bridge"], neighbours=True)
        found["idle_met_after_s"] = time.monotonic() - began
        found |= await _watch(bus, pids, "idle")
        running.cancel()
    parts.close()
    return found


def pss_mib(pid: int) -> float:
    """Memory of a process, its part of what it shares."""
    found = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def mib(pid: int, name: str) -> float:
    """A line of a process's status that is in kB."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
