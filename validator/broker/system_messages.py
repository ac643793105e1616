"""Messages that a broker itself publishes on the system stream: receipts, and what other parts of it have to say."""

from __future__ import annotations

import secrets
import threading

from validator.protocol.codec.message import make_record
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import publish_message
from validator.protocol.model import MessageRef, Record, SignatureType


class SystemChain:
    """One chain of messages, new with every start; each refers to its predecessor. Thread-safe."""

    def __init__(self, key: SigningKey, system_stream: str) -> None:
        self._key = key
        self._stream_id = system_stream
        self._chain_id = secrets.token_hex(10)
        self._lock = threading.Lock()
        self._last: MessageRef | None = None

    def sign(self, timestamp_ms: int, content: bytes) -> Record:
        """The next message; never older than the last, numbered where the time is the same."""
        with self._lock:
            last = self._last
            ref = MessageRef(timestamp_ms, 0)
            if last is not None and timestamp_ms <= last.timestamp_ms:
                ref = MessageRef(last.timestamp_ms, last.sequence_number + 1)
            message = publish_message(
                self._key,
                stream_id=self._stream_id,
                timestamp_ms=ref.timestamp_ms,
                sequence_number=ref.sequence_number,
                content=content,
                msg_chain_id=self._chain_id,
                prev=last,
                signature_type=SignatureType.ECDSA_SECP256K1_EVM,
            )
            self._last = ref
        return make_record(message)
