"""What stream partitions cost in which nobody speaks: a node of the real network, and the broker's ingest behind it.

Another node, in a program of its own, has joined the same parts, so each has a neighbour. CPU and memory are those of
the bridge's program and of this process, which holds a broker and what measures it. A part of ``broker``.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path

from tests.broker_parts import BrokerParts
from tests.streamr_network import run_streamr_network
from validator.broker.ingest import Ingest
from validator.net.streamr.node_process import NodeBus
from validator.protocol.errors import TransientError

SETTLED_S = 20.0
WATCHED_S = 20.0
NEIGHBOURS_S = 300.0
JOINED_AT_ONCE = 100
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(parts: int, folder: Path) -> dict[str, float]:
    return asyncio.run(_measure(parts, folder))


async def _is_lonely(bus: NodeBus) -> bool:
    """Whether a part has no neighbour, or the node is too busy to say."""
    try:
        return bool((await bus.info()).lonely)
    except TransientError:
        return True


async def _measure(count: int, folder: Path) -> dict[str, float]:
    streams = {f"0x{'cc' * 20}/idle/{number:05}": 1 for number in range(count)}
    parts = BrokerParts(folder, streams=streams)
    async with run_streamr_network() as network:
        bus, other = await network.launch(), await network.open(0)
        ingest = Ingest(bus, parts.admission, parts.chain, max_parts=count)
        running = asyncio.create_task(ingest.run())
        began = time.monotonic()
        named = parts.chain.parts()[:count]
        for at in range(0, count, JOINED_AT_ONCE):
            await other.join(named[at : at + JOINED_AT_ONCE])
        while ingest.joined < count:  # a node that is busy may answer too late, and is asked again
            await ingest.follow_registry()
        async with asyncio.timeout(NEIGHBOURS_S):
            while await _is_lonely(bus):
                await asyncio.sleep(1.0)
        joined_s = time.monotonic() - began
        await asyncio.sleep(SETTLED_S)
        pids = {"bridge": bus.process.pid or 0, "python": os.getpid()}
        before, began = {name: cpu_s(pid) for name, pid in pids.items()}, time.monotonic()
        await asyncio.sleep(WATCHED_S)
        watched_s = time.monotonic() - began
        found = {"idle_parts": float(ingest.joined), "idle_joined_after_s": joined_s}
        for name, pid in pids.items():
            found[f"idle_{name}_cores"] = (cpu_s(pid) - before[name]) / watched_s
            found[f"idle_{name}_mib"] = mib(pid, "VmRSS")
        running.cancel()
    parts.close()
    found["idle_cores"] = found["idle_bridge_cores"] + found["idle_python_cores"]
    found["idle_mib"] = found["idle_bridge_mib"] + found["idle_python_mib"]
    return found


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def mib(pid: int, name: str) -> float:
    """A line of a process's status that is in kB."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
