"""``logstore-validator status`` and ``window``: what the running server says of itself, and what two validators saw."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from validator.protocol.codec.message import decode_message
from validator.protocol.codec.outcome import decode_observation
from validator.protocol.errors import ConfigError, TransientError
from validator.protocol.model import Address, Digest, InstanceId, InstanceKind, Observation, StatementKind
from validator.quantities import show_count
from validator.settings import Settings
from validator.steps.reconcile import difference
from validator.wiring import Node

LEVELS = ("healthy", "degraded", "not taking part")
"""The exit status is the place in this list."""
ANSWER_S = 20.0
ANSWER_BYTES = 64 << 20
SHOWN_MESSAGES = 1_000
_SPAN = re.compile(r"-?([0-9]{1,6})\s*(m|min|h|d|s)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Told:
    """What the server told; ``data`` None: it does not answer, and ``text`` says why."""

    level: str
    text: str
    data: Mapping[str, Any] | None = None

    @property
    def status(self) -> int:
        return LEVELS.index(self.level)


def ask_status(settings: Settings, limit: int = 100) -> Told:
    """The verdict of the server on this machine. Never raises: a server that does not answer takes no part."""
    try:
        data = ask(settings, f"/status.json?limit={limit}")
        verdict = data["verdict"]
        return Told(LEVELS[LEVELS.index(verdict["level"])], str(verdict["text"]), data)
    except (TransientError, LookupError, ValueError, TypeError) as error:
        return Told(LEVELS[2], f"{LEVELS[2]}: the server does not answer: {error}")


def ask(settings: Settings, path: str) -> Mapping[str, Any]:
    """What the operator's listener of this machine answers. Raises TransientError with why it does not."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.operator_host, settings.operator_host)  # noqa: S104
    place = f"{host}:{settings.operator_port}"
    try:
        with urllib.request.urlopen(f"http://{place}{path}", timeout=ANSWER_S) as answer:
            found = json.loads(answer.read(ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise TransientError(f"{place}: HTTP {error.code}: {error.read(500).decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise TransientError(f"{place}: {getattr(error, 'reason', error)}") from error
    if not isinstance(found, dict):
        raise TransientError(f"{place}: answers with something else than an object")
    return found


def describe_status(told: Told) -> Iterator[str]:
    """The verdict first, then its other reasons, then one line for each part."""
    yield told.text
    data = told.data
    if data is None:
        return
    yield from (f"  {reason}" for reason in data["verdict"]["reasons"] if reason not in told.text)
    seat = data["seat"]
    yield f"seat     {seat['text'] if seat else 'not looked at yet'}"
    peers = data["peers"]
    yield f"peers    {sum(peer['reachable'] for peer in peers)} of {len(peers)} answer"
    for name in ("window", "bundle", "report"):
        counts = [f"{count} {state}" for state, count in data[f"{name}_counts"].items() if count]
        yield f"{name + 's':<8} {', '.join(counts) or 'none'}"
    queues = data["queues"]
    waiting = "Redis does not answer" if queues is None else ", ".join(f"{n} {name}" for name, n in queues.items())
    yield f"queues   {waiting}; {show_count(data['due'], 'row')} due"


def describe_participation(seen: Mapping[str, Any], since: str) -> str:
    """One line: of so many windows so many decided, with our observation, with our signature."""
    parts = (
        f"since {since}: {show_count(seen['windows'], 'window')}, {seen['decided']} decided",
        f"{seen['included']} with our observation, {seen['signed']} with our signature",
        f"{seen['disagreed']} decided otherwise than we voted, {seen['incomplete']} incomplete",
        show_count(seen["messages"], "message"),
    )
    return "; ".join(parts)


def parse_since(text: str, now_ms: int) -> int:
    """Unix ms of "1h", "30min", "7d" ago, or of a time such as 2026-11-30T12:00. Raises ConfigError."""
    found = _SPAN.fullmatch(text.strip())
    if found is not None:
        return max(0, now_ms - 1000 * int(found[1]) * _SECONDS[found[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--since: {text!r} is no span such as 1h, 30min, 7d, and no time", field="--since") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def describe_window(told: Told, start_ms: int) -> Iterator[str]:
    """One window as the server shows it. Raises ConfigError: it shows none that starts then."""
    windows = () if told.data is None else told.data["windows"]
    for window in windows:
        if window["start_ms"] == start_ms:
            yield f"window       {show_ms(start_ms)} to {show_ms(window['end_ms'])}, epoch {window['epoch']}"
            yield f"state        {window['state']}" + (f", bundle {window['bundle']}" if window["bundle"] else "")
            if window["waits_for"]:
                yield f"waits for    {window['waits_for']}"
            leader = window["leader"] or "nobody yet"
            yield f"round        {window['round']}, {window['step'] or 'not begun'}, led by {leader}"
            spoken = ", ".join(f"{count} {kind}s" for kind, count in window["votes"].items())
            yield f"heard        {spoken or 'nobody'}"
            for certificate in told.data["certificates"] if told.data else ():
                if certificate["instance"] == f"window:{start_ms}":
                    yield f"certificate  round {certificate['round']}, signed by {', '.join(certificate['signers'])}"
            return
    known = [window["start_ms"] for window in windows]
    hint = f"; the newest are {', '.join(map(str, known[-3:]))}" if known else ""
    raise ConfigError(f"no window starts at {start_ms}{hint}", field="START")


def show_ms(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%dT%H:%M:%S}Z"


# --- what two validators saw ----------------------------------------------------------------------------


def compare_window(node: Node, start_ms: int, member: Address) -> Iterator[str]:
    """Message by message: what only we, and what only the member saw of a window. Asks the member for what differs.

    Raises:
        ConfigError: a side's observation is not here (yet, or any more).
        TransientError, RemoteFault: the member does not answer, or wrongly.
    """
    context = node.context
    instance = InstanceId(InstanceKind.WINDOW, start_ms)
    seen = _load_observations(node, instance)
    own, theirs = (_require(seen, who, start_ms) for who in (node.address, member))
    yield f"{show_count(own.count, 'message')} here, {theirs.count} at 0x{member.hex()}"
    if own.set_root == theirs.set_root:
        yield "the same messages"
        return
    held = context.store.sets.open_set(own.set_root)
    found = difference(node.context.peers, member, theirs.set_root, held, count=theirs.count)
    only_here = context.store.sets.load_messages(own.set_root, found.have[:SHOWN_MESSAGES]) or []
    only_there = context.peers.fetch_messages(member, theirs.set_root, found.need[:SHOWN_MESSAGES])
    for place, count, messages in (("here", len(found.have), only_here), ("there", len(found.need), only_there)):
        yield f"only {place}: {count}"
        for line in sorted(_describe_message(data) for data in messages):
            yield f"  {line}"
        if count > SHOWN_MESSAGES:
            yield f"  … and {count - SHOWN_MESSAGES} more"


def _load_observations(node: Node, instance: InstanceId) -> dict[Address, Observation]:
    """By who made them, as far as statement and body are here."""
    stored = node.context.store.instances.load_instance(instance)
    found: dict[Address, Observation] = {}
    for said in () if stored is None else stored.statements:
        if said.kind is StatementKind.OBSERVATION:
            body = node.context.store.instances.load_body(Digest(said.value))
            if body is not None:
                found[said.signer] = decode_observation(body)
    return found


def _require(seen: Mapping[Address, Observation], who: Address, start_ms: int) -> Observation:
    if who not in seen:
        raise ConfigError(
            f"no observation of window {start_ms} by 0x{who.hex()} is here; they are kept until its bundle is verified",
            field="START",
        )
    return seen[who]


def _describe_message(data: bytes) -> str:
    message = decode_message(data)
    return (
        f"{message.stream_id} partition {message.partition}  {message.timestamp_ms}/{message.sequence_number}  "
        f"publisher 0x{message.publisher_id.hex()}  {len(message.content)} bytes"
    )
