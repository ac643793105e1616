"""What somebody needs who tries a running network out: a key with coins for gas, and how programs find the network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from validator.devnet.contracts import WEI, DevChain
from validator.devnet.folder import RunFolder, write_private
from validator.devnet.plan import Options, make_key
from validator.net.running_network import RunningNetwork, announced

NAME = "newcomer"
COINS_WEI = 1_000 * WEI


def fund_newcomer(chain: DevChain, options: Options) -> None:
    """Coins and nothing else: tokens can be bought, and everything else done with them."""
    chain.fund([make_key(options.seed, NAME, "consumer").address], COINS_WEI)


def announce_network(
    folder: RunFolder, options: Options, streams: Sequence[str], broker_urls: Sequence[str]
) -> AbstractContextManager[Path]:
    """Found by ``logstore`` without a word, for as long as the block runs; the key lies in the run's folder."""
    key = make_key(options.seed, NAME, "consumer")
    running = RunningNetwork(
        os.getpid(),
        str(folder.path / "network.toml"),
        str(write_private(folder.path / "keys" / NAME, key.secret_hex() + "\n")),
        tuple(streams),
        tuple(broker_urls),
    )
    return announced(running)
