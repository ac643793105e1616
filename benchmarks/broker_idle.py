"""What stream partitions cost in which nobody speaks: a node of the real network, and the broker's ingest behind it.

Another node, in a program of its own, has joined the same parts, so each has a neighbour. CPU and memory (PSS) are
those of the bridge's program and of this process, which holds a broker and what measures it. Where a machine is too
busy for all to find neighbours in time, the rest are counted as *lonely*, and the figures are those of what there is. A
part of ``broker``.
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
from validator.broker.ingest import Ingest
from validator.net.streamr.node_process import NodeBus
from validator.ports.bus import MessageBus
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import StreamPart

WATCHED_S = 20.0
CALM_S = 5.0
"""The bridge is at rest when it used no less CPU in the last of such times than in the one before, by a tenth."""
MOST_S = 600.0
"""For joins, and again for neighbours and rest: a node on a busy machine gets what it gets, and the figures say so."""
JOINED_AT_ONCE = 32
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(parts: int, folder: Path) -> dict[str, float]:
    return asyncio.run(_measure(parts, folder))


async def _count_lonely(bus: NodeBus) -> int | None:
    """Parts without a neighbour; None: the node is too busy to say."""
    try:
        return (await bus.info()).lonely
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
    while await _count_lonely(bus) != 0 and time.monotonic() < end_s:
        await asyncio.sleep(1.0)


async def _settle(bus: NodeBus, pid: int, end_s: float) -> int | None:
    """Until every part has a neighbour and the node is at rest, or the time is over; parts without a neighbour."""
    before, used = cpu_s(pid), 0.0
    while True:
        await asyncio.sleep(CALM_S)
        lonely, now = await _count_lonely(bus), cpu_s(pid)
        last, used, before = used, now - before, now
        print(f"  waiting: {lonely} parts without a neighbour, {used / CALM_S:.2f} cores", flush=True)
        if (lonely == 0 and last and used >= 0.9 * last) or time.monotonic() > end_s:
            return lonely


async def _measure(count: int, folder: Path) -> dict[str, float]:
    streams = {f"0x{'cc' * 20}/idle/{number:05}": 1 for number in range(count)}
    parts = BrokerParts(folder, streams=streams)
    async with run_streamr_network() as network:
        bus, other = await network.launch(), await network.launch()  # a program each, and the entry point's is idle
        ingest = Ingest(bus, parts.admission, parts.chain, max_parts=count)
        running = asyncio.create_task(ingest.run())
        await _meet(bus, other, parts.chain.parts()[:1])
        began = time.monotonic()
        theirs = await _join(other, parts.chain.parts()[:count], began + MOST_S)
        while ingest.joined < count and time.monotonic() < began + 2 * MOST_S:
            await ingest.follow_registry()  # takes up where a busy node's time was over
        joined_s = time.monotonic() - began
        pids = {"bridge": bus.process.pid or 0, "python": os.getpid()}
        lonely = await _settle(bus, pids["bridge"], time.monotonic() + MOST_S)
        before, watched = {name: cpu_s(pid) for name, pid in pids.items()}, time.monotonic()
        await asyncio.sleep(WATCHED_S)
        watched_s = time.monotonic() - watched
        found = {"idle_parts": float(ingest.joined), "idle_other_parts": float(theirs), "idle_joined_after_s": joined_s}
        found |= {"idle_settled_after_s": watched - began, "idle_lonely": -1.0 if lonely is None else float(lonely)}
        for name, pid in pids.items():
            found[f"idle_{name}_cores"] = (cpu_s(pid) - before[name]) / watched_s
            found[f"idle_{name}_mib"] = pss_mib(pid)
        running.cancel()
    parts.close()
    found["idle_cores"] = found["idle_bridge_cores"] + found["idle_python_cores"]
    found["idle_mib"] = found["idle_bridge_mib"] + found["idle_python_mib"]
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
