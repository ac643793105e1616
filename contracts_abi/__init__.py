"""Contracts of the network: Solidity sources in ``src``, and what the compiler made of them beside this file.

The JSON files are written by ``python -m contracts_abi.compile`` (SOURCE.md) and never edited by hand: ours from our
sources, the registries of streams, nodes and storage from Streamr's own package. ``load`` reads one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

NAMES = (
    "Token",
    "StreamRegistry",
    "NodeManager",
    "StoreManager",
    "QueryManager",
    "ReportManager",
    "SignerWallet",
    "MessageReader",
    "NodeRegistry",
    "StreamStorageRegistry",
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled contract: its ABI as parsed JSON, and its creation bytecode."""

    name: str
    abi: tuple[dict[str, Any], ...]
    bytecode: bytes


@cache
def load(name: str) -> Artifact:
    """The artifact of one of ``NAMES``. Raises KeyError for any other."""
    if name not in NAMES:
        raise KeyError(name)
    data = json.loads((resources.files(__name__) / f"{name}.json").read_text())
    return Artifact(name, tuple(data["abi"]), bytes.fromhex(data["bytecode"][2:]))
