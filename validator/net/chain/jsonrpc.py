"""JSON-RPC 2.0 with one node: requests in one body, every answer a value, a revert or a failure that is told apart.

Bodies are bounded before they are parsed, and never decompressed. Only the host of a URL is ever put into a text.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from validator.net.http.client import BoundedClient
from validator.net.http.pacing import retry_after_s
from validator.net.http.urls import EVERYWHERE, read_operator_url
from validator.protocol.errors import ConfigError, MalformedInput, RemoteFault, TransientError

CONNECT_S = 4.0

T = TypeVar("T")

_VM_FAILURES = (
    "revert",
    "out of gas",
    "outofgas",
    "invalid opcode",
    "invalidfeopcode",
    "opcodenotfound",
    "stack underflow",
    "stackunderflow",
    "stack overflow",
    "stackoverflow",
    "stack limit",
    "invalid jump",
    "invalidjump",
    "bad instruction",
    "write protection",
    "return data out of bounds",
    "gas uint64 overflow",
    "evm error",
    "vm exception",
)
_BUSY_CODES = (429, -32029)
_LIMIT_EXCEEDED = -32005
"""EIP-1474; for logs it means their number."""
_BUSY = re.compile(
    r"rate.?limit|too many requests|requests? limit|requests? per|per second|compute unit|throttl|quota|credits"
    r"|over capacity|slow down"
)
"""Hints only: a refusal in other words is tried again by the caller, later."""
_PRUNED = (
    "missing trie node",
    "pruned",
    "historical state",
    "state is not available",
    "state not available",
    "state unavailable",
    "no state available",
    "archive",
)


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One JSON-RPC request. ``parse`` makes a comparable value of the result; it raises MalformedInput or returns."""

    method: str
    params: tuple[Any, ...]
    parse: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Reverted:
    """The call ran and failed; ``data`` is what it reverted with. An answer like any other."""

    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Failed:
    """A source did not answer a request: a short reason, and what kind of failure it is."""

    reason: str
    pruned: bool = False
    """It lacks the state asked for."""
    busy: bool = False
    """It asks to be asked less."""
    down: bool = False
    """It is not fit to answer anything: no connection, a server's error."""
    rest_s: float = 0.0
    """How long it asks to be left alone."""


class JsonRpc:
    """One node. Thread-safe; ``connections`` calls at a time."""

    def __init__(
        self, url: str, note: Callable[[str], None], *, deadline_s: float, max_body_bytes: int, connections: int
    ) -> None:
        """``note`` hears the reason of every failure. Raises ConfigError unless ``url`` is an http or https URL."""
        try:
            named = read_operator_url(url)
        except ValueError as error:
            raise ConfigError(f"rpc_urls: {error}", field="rpc_urls") from error
        self.host = named.origin.authority
        self._note = note
        self._base, self._target, self._headers = named.origin, named.target or "/", named.headers
        self._secrets = named.secrets
        self._max_body_bytes = max_body_bytes
        self._client = BoundedClient(
            allow_nets=EVERYWHERE,
            connect_timeout_s=min(CONNECT_S, deadline_s),
            read_timeout_s=deadline_s,
            floor_after_s=math.inf,
            encodings=(),
            per_port=connections,
            resend=False,
        )

    def close(self) -> None:
        self._client.close()

    def post(self, requests: Sequence[Request[Any]], until: float) -> list[tuple[Any, Any]]:
        """(parsed value, Reverted or Failed; the result as it came) per request."""
        calls = [
            {"jsonrpc": "2.0", "id": number, "method": request.method, "params": request.params}
            for number, request in enumerate(requests)
        ]
        try:
            body = self._send(msgspec.json.encode(calls if len(calls) > 1 else calls[0]), until)
            parsed = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            failed = self.fail("answer is not JSON")
        except MalformedInput as error:
            failed = self.fail(error.reason)
        except _Refused as error:
            failed = self.fail(error.message, busy=error.busy, down=not error.busy, rest_s=error.rest_s)
        except (TransientError, RemoteFault) as error:
            reached = isinstance(error, RemoteFault) and not error.fields.get("answer_lost")
            failed = self.fail(error.fields.get("reason", error.message), down=not reached)
        else:
            items = parsed if isinstance(parsed, list) else [parsed]
            by_id = {item["id"]: item for item in items if isinstance(item, dict) and type(item.get("id")) is int}
            whole = items[0] if len(items) == 1 and not by_id else None
            found = [by_id.get(number, whole) for number in range(len(requests))]
            return [
                (self.read(request, item), item.get("result") if isinstance(item, dict) else None)
                for request, item in zip(requests, found, strict=True)
            ]
        return [(failed, None)] * len(requests)

    def _send(self, body: bytes, until: float) -> bytes:
        left = until - time.monotonic()
        if left <= 0:
            raise _Refused("timed out")
        fields = (*self._headers, ("content-type", "application/json"))
        with self._client.stream(
            "POST",
            self._base,
            self._target,
            max_bytes=self._max_body_bytes,
            deadline_s=left,
            headers=fields,
            body=body,
        ) as response:
            status, rest_s = response.status, retry_after_s(response.headers)
            if status == 429 or status >= 500 or (status >= 400 and rest_s > 0):
                raise _Refused(f"HTTP {status}", busy=status == 429 or rest_s > 0, rest_s=rest_s)
            answer = b"".join(response.chunks)
        if status != 200 and not answer:
            raise MalformedInput("status", f"HTTP {status}")
        return answer

    def read(self, request: Request[Any], item: Any) -> Any:
        """The parsed value of one call's answer, Reverted, or Failed."""
        if not isinstance(item, dict):
            return self.fail(f"{request.method}: no answer in the batch")
        error = item.get("error")
        if error is not None:
            return self._read_error(request.method, error)
        if "result" not in item:
            return self.fail(f"{request.method}: neither result nor error")
        try:
            return request.parse(item["result"])
        except MalformedInput as fault:
            return self.fail(f"{request.method}: {fault.message}")

    def _read_error(self, method: str, error: Any) -> Reverted | Failed:
        message = str(error.get("message", "")) if isinstance(error, dict) else str(error)
        lowered = message.lower()
        ran = method in ("eth_call", "eth_estimateGas") and isinstance(error, dict)
        if ran and (error.get("code") == 3 or any(word in lowered for word in _VM_FAILURES)):
            return Reverted(_revert_data(error.get("data")))
        code = error.get("code") if isinstance(error, dict) else None
        busy = (
            code in _BUSY_CODES or (code == _LIMIT_EXCEEDED and method != "eth_getLogs") or bool(_BUSY.search(lowered))
        )
        return self.fail(f"{method}: {message}", pruned=any(word in lowered for word in _PRUNED), busy=busy)

    def fail(
        self, reason: str, *, pruned: bool = False, busy: bool = False, down: bool = False, rest_s: float = 0.0
    ) -> Failed:
        """A failure in printable text without the URL's secrets; whoever listens has heard of it."""
        for secret in self._secrets:
            reason = reason.replace(secret, "…")
        reason = "".join(c if c.isprintable() else "?" for c in reason[:200])
        self._note(reason)
        return Failed(reason, pruned, busy, down, rest_s)


class _Refused(Exception):
    """An HTTP answer that holds none to our requests."""

    def __init__(self, message: str, *, busy: bool = False, rest_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.busy = busy
        self.rest_s = rest_s


def _revert_data(data: Any) -> bytes:
    text = data.get("data") if isinstance(data, dict) else data
    if isinstance(text, str) and text.startswith("0x") and len(text) <= 1 << 16:
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            return b""
    return b""
