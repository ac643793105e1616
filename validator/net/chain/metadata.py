"""What strangers wrote on chain, parsed under rules that give every validator the same answer.

The committee and the scope follow from these texts, so nothing here may depend on the machine: nesting is bounded
by a count (not by the interpreter's stack), sizes in bytes, and numbers that JSON does not know are refused.
"""

from __future__ import annotations

import json
from typing import Any

from validator.protocol.codec.arweave_text import decode_storage_id
from validator.protocol.errors import MalformedInput

MAX_NODE_METADATA = 4 << 10
MAX_STREAM_METADATA = 64 << 10
MAX_URL_CHARS = 256
MAX_BRACKETS = 64
MAX_PARTITIONS = 100


def parse_node_metadata(raw: bytes) -> tuple[str | None, str | None]:
    """(http URL, validator URL) of a node: strings of 1 to 256 printable ASCII characters, http or https.

    Anything else, and everything in a text that is no JSON object of at most 4 KiB, is None. Who names such a text is a
    member, or counts as a broker, for everybody alike: that a client refuses the URL (fetching.check_url: an operator's
    own settings), or finds nobody there, plays no part. Such a member is one of the faulty that n members survive.
    """
    data = _parse_object(raw, MAX_NODE_METADATA)
    return _url(data.get("http")), _url(data.get("validator"))


def parse_node_wallet(raw: bytes) -> bytes | None:
    """``arweave`` of a node's metadata: the address that its uploads are paid from; None where it names none.

    43 characters of base64url in their one canonical form, in a JSON object of at most 4 KiB.
    """
    try:
        return bytes(decode_storage_id(_parse_object(raw, MAX_NODE_METADATA).get("arweave"), "arweave"))
    except MalformedInput:
        return None


def parse_partitions(raw: bytes) -> int:
    """``partitions`` of a stream's metadata: 1 to 100; 1 where it is missing or anything else."""
    value = _parse_object(raw, MAX_STREAM_METADATA).get("partitions", 1)
    return value if type(value) is int and 1 <= value <= MAX_PARTITIONS else 1


def _parse_object(raw: bytes, max_bytes: int) -> dict[str, Any]:
    if len(raw) > max_bytes or raw.count(b"[") + raw.count(b"{") > MAX_BRACKETS:
        return {}
    try:
        data = json.loads(raw.decode(), parse_constant=_refuse, parse_int=_parse_int)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_int(text: str) -> int | None:
    return int(text) if len(text) <= 20 else None


def _url(value: Any) -> str | None:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_URL_CHARS:
        return None
    if any(not "!" <= c <= "~" for c in value) or not value.startswith(("http://", "https://")):
        return None
    return value
