"""The validator's own app, tasks and settings over the database of a small network of one; the world outside is a fake.

``python -m celery -A tests.integration.tasks.uploading_app worker -P prefork``, with FOLDER (the network's), WALLET
(base64url address) and AT_MS (the time) set beside the settings. Each run of a task notes its process in FOLDER/pid.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import tasks.celery
from tasks import running
from tests.fakes.small_network import SmallNetwork
from validator.net.arweave.storage import ArweaveStorage
from validator.protocol.codec.arweave_text import decode_base64url
from validator.steps.context import Context
from validator.wiring import load_wallet

app = tasks.celery.app
FOLDER = Path(os.environ["FOLDER"])


@dataclass
class StandIn:
    """For a Node."""

    context: Context


@lru_cache(maxsize=1)
def make_context() -> Context:
    """Once in each process of the pool."""
    network = SmallNetwork(FOLDER, FOLDER / "no empty database is needed", 1)
    network.clock.at_ms = int(os.environ["AT_MS"])
    wallet = decode_base64url(os.environ["WALLET"], "wallet", max_bytes=32)
    network.world.nodes = tuple(replace(node, arweave=wallet) for node in network.world.nodes if node.validator_url)
    (member,) = network.members
    settings = tasks.celery.settings()
    member.storage = ArweaveStorage(  # type: ignore[assignment]
        settings.gateway_urls, load_wallet(settings), reward_cap=settings.max_reward_winston
    )
    member.restart()
    return member.context


def stand_in() -> StandIn:
    (FOLDER / "pid").write_text(str(os.getpid()))
    return StandIn(make_context())


running.node = stand_in  # type: ignore[assignment, attr-defined]
