"""The object forms of the old brokers: readable, and not to be verified."""

from __future__ import annotations

from typing import Any

import msgspec

from validator.protocol.model import EncryptionType, Message

_ID = ("streamId", "streamPartition", "timestamp", "sequenceNumber", "publisherId", "msgChainId")


def nested_object(line: bytes) -> Any:
    """Of 2023, from the array."""
    array = msgspec.json.decode(line)
    content = array[7]
    if array[5] == 0 and isinstance(content, str):
        try:
            content = msgspec.json.decode(content.encode("utf-8", "surrogatepass"))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            content = array[7]
    prev = array[2]
    names = ("timestamp", "sequenceNumber")
    return {
        "metadata": {
            "id": dict(zip(_ID, array[1], strict=False)),
            "prevMsgRef": dict(zip(names, prev, strict=False)) if isinstance(prev, list) else None,
            "messageType": array[3],
            "contentType": array[4],
            "encryptionType": array[5],
            "groupKeyId": array[6],
            "newGroupKey": array[8],
            "signature": array[10],
        },
        "content": content,
    }


def flat_object(message: Message) -> dict[str, Any]:
    """Of the newest brokers."""
    content: Any = message.content.hex()
    if message.encryption_type is EncryptionType.NONE:
        try:
            content = msgspec.json.decode(message.content)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            content = message.content.hex()
    found = {
        "streamId": message.stream_id,
        "streamPartition": message.partition,
        "timestamp": message.timestamp_ms,
        "sequenceNumber": message.sequence_number,
        "publisherId": "0x" + message.publisher_id.hex(),
        "msgChainId": message.msg_chain_id,
        "messageType": int(message.message_type),
        "contentType": int(message.content_type),
        "encryptionType": int(message.encryption_type),
        "content": content,
        "signatureType": int(message.signature_type),
        "signature": message.signature.hex(),
    }
    return found if message.group_key_id is None else {**found, "groupKeyId": message.group_key_id}
