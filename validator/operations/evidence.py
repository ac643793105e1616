"""``logstore-validator evidence``: double votes that were noticed, as a table or with their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from validator.protocol.codec.statement import encode_statement
from validator.store.database import Database
from validator.store.statements import Evidence, load_evidence

MAX_LISTED = 10_000


def list_evidence(database: Database) -> list[Evidence]:
    """Newest first, at most ``MAX_LISTED``."""
    with database.read() as connection:
        return load_evidence(connection, MAX_LISTED)


def describe_evidence(found: Sequence[Evidence]) -> list[str]:
    """One line each: when it was noticed, who, where, and the two values."""
    return [
        f"{datetime.fromtimestamp(e.noticed_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z  0x{e.first.signer.hex()}  "
        f"{e.first.instance} round {e.first.round} {e.first.kind.name.lower()}: "
        f"0x{e.first.value.hex()} and 0x{e.second.value.hex()}"
        for e in found
    ]


def evidence_data(found: Sequence[Evidence]) -> list[dict[str, Any]]:
    """The same as data; ``first`` and ``second`` are whole signed statements, canonical bytes in hex."""
    return [
        {
            "noticed_ms": e.noticed_ms,
            "signer": f"0x{e.first.signer.hex()}",
            "instance": str(e.first.instance),
            "config_digest": f"0x{e.first.config_digest.hex()}",
            "round": e.first.round,
            "kind": e.first.kind.name.lower(),
            "first": f"0x{encode_statement(e.first).hex()}",
            "second": f"0x{encode_statement(e.second).hex()}",
        }
        for e in found
    ]
