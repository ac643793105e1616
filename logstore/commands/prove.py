"""logstore prove: small files, each a stored message with its proof."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logstore.commands.options import (
    CacheOption,
    FromOption,
    GatewayOption,
    JsonOption,
    NetworkOption,
    RpcOption,
    ToOption,
    connected,
    make_output,
    parse_span,
)
from logstore.files import written_whole
from logstore.output import count_of
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.output import Output
    from logstore.proving import OpenBundle, Wanted
    from logstore.store import LogStore
    from validator.protocol.codec.stored_message import StoredMessage
    from validator.protocol.model import Record, StreamPart


LAST_MS = 1 << 53
"""Behind all that can be stored."""


def prove(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="The stream's id.")],
    timestamps: Annotated[
        list[str] | None, typer.Argument(metavar="[TIMESTAMP]...", help="Times of messages, to the ms.")
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    partition: Annotated[
        int | None, typer.Option(min=0, help="Only of this partition; of a span it is the one, by default 0.")
    ] = None,
    sequence: Annotated[int | None, typer.Option(min=0, help="Only with this sequence number.")] = None,
    publisher: Annotated[str | None, typer.Option(metavar="HEX", help="Only of this publisher.")] = None,
    folder: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the files go.")] = Path(),
    network: NetworkOption = None,
    rpc: RpcOption = None,
    gateway: GatewayOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write each message of these times as a small file with its proof; logstore verify reads it.

    With --from and --to instead of times: one file with all messages of a partition in that span, and the proof that
    there are no others, or none at all.

    Status 0: every time has a message; 3: one has none, in its window or in a later bundle's late set, or the span ends
    behind what is stored.

    Example: logstore prove 0x…/sensors 2026-11-30T12:00:05.250
    """
    from logstore.connection import now_ms
    from logstore.times import parse_time

    output = make_output(as_json)
    if from_ is not None:
        if timestamps or sequence is not None or publisher is not None:
            raise ConfigError("--from: of a span all messages are proven; name no times, --sequence, --publisher")
        with connected(network, rpc, gateway, cache, output) as store:
            _prove_span(store, output, (stream, partition or 0), parse_span(from_, to), folder)
        return
    if not timestamps:
        raise ConfigError("TIMESTAMP: name times of messages, or a span with --from and --to", field="timestamps")
    times = [parse_time(text, now_ms(), "TIMESTAMP") for text in timestamps]
    key = _parse_publisher(publisher)

    def wanted(record: Record) -> bool:
        m = record.message
        return (
            m.timestamp_ms == at_ms
            and partition in (None, m.partition)
            and sequence in (None, m.sequence_number)
            and key in (None, m.publisher_id)
        )

    done: list[dict[str, Any]] = []
    with connected(network, rpc, gateway, cache, output) as store:
        for at_ms in times:
            found = _find(store, output, stream, at_ms, wanted)
            done += [_write(stored, folder, output) for stored in found]
        output.document(done, lambda out: out.line(count_of(len(done), "proof")))


def _parse_publisher(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text.removeprefix("key:").removeprefix("0x"))
    except ValueError as error:
        raise ConfigError(f"--publisher: {text!r} is not hex", field="publisher") from error


def _find(store: LogStore, output: Output, stream: str, at_ms: int, wanted: Wanted) -> list[StoredMessage]:
    """The messages of a time. Raises NotStored if there is none."""
    from logstore.errors import NotStored
    from logstore.proving import prove as prove_in
    from logstore.times import format_time

    reports = store.reports
    for number in reports.find(at_ms, at_ms + 1):
        found = list(prove_in(store.network, _open(store, number, output), stream, wanted, late=False))
        if found:
            return found
    for opened in _late_bundles(store, output, stream, at_ms):
        found = list(prove_in(store.network, opened, stream, wanted, late=True))
        if found:
            return found
    raise NotStored(
        f"{stream}: no such message at {format_time(at_ms)} in its window, nor in the late sets of the bundles so far"
    )


def _late_bundles(store: LogStore, output: Output, stream: str, at_ms: int) -> Iterator[OpenBundle]:
    """Bundles whose late set may hold a message of that time, in order; of the others only manifests are fetched."""
    from logstore.selection import holds_late, late_reach_ms

    reports = store.reports
    for number in range(reports.find(at_ms, LAST_MS).start, reports.count):
        (bundle,) = reports.fetch_many(number, number + 1)
        manifest = store.bundles.fetch_manifest(bundle, output)
        if bundle.end_ms - late_reach_ms(manifest) > at_ms:
            return
        if holds_late(manifest, stream):
            yield _open(store, number, output)


def _open(store: LogStore, number: int, output: Output) -> OpenBundle:
    from logstore.proving import OpenBundle

    (bundle,) = store.reports.fetch_many(number, number + 1)
    return OpenBundle(bundle, store.bundles.fetch(bundle, output), store.bundles.fetch_manifest(bundle, output))


def _write(stored: StoredMessage, folder: Path, output: Output) -> dict[str, Any]:
    from logstore.stored_message import describe_message
    from validator.protocol.codec.message import decode_message
    from validator.protocol.codec.proof import encode_proof
    from validator.protocol.codec.stored_message import encode_stored

    message = decode_message(stored.canonical)
    data = encode_stored(stored)
    name = f"message-{message.timestamp_ms}-{message.sequence_number}-p{message.partition}"
    path = _write_file(folder, name, data)
    proof_bytes = len(encode_proof(stored.proof))
    if not output.as_json:
        output.line(f"{path}  {len(data)} bytes, {proof_bytes} of them the proof")
    return {
        "file": str(path),
        "bundle": stored.number,
        "instance": str(stored.proof.window.instance),
        "bytes": len(data),
        "proof_bytes": proof_bytes,
        "message": describe_message(message),
    }


def _prove_span(store: LogStore, output: Output, part: StreamPart, span: tuple[int | None, int], folder: Path) -> None:
    from logstore.range_proving import prove_range
    from logstore.stored_range import MAX_FILE_BYTES, encode_range
    from logstore.times import format_time

    from_ms, until_ms = span[0] or 0, span[1]
    stored = prove_range(store, output, part, from_ms, until_ms)
    data = encode_range(stored)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"--from: {len(data)} bytes, more than {MAX_FILE_BYTES} of one file; prove it in parts")
    path = _write_file(folder, f"span-{from_ms}-{until_ms}-p{part[1]}", data)
    count = sum(len(p.messages) for p in stored.parts)
    values = {
        "file": str(path),
        "stream": part[0],
        "partition": part[1],
        "from": format_time(from_ms),
        "until": format_time(until_ms),
        "messages": count,
        "parts": [str(p.instance) for p in stored.parts],
        "bundles": sorted({p.number for p in stored.parts}),
        "bytes": len(data),
    }
    output.document(values, lambda out: out.line(f"{path}  {count} messages, {len(data)} bytes"))


def _write_file(folder: Path, name: str, data: bytes) -> Path:
    """The file complete, or not at all. Raises ConfigError."""
    path = _free_path(folder, name, data)
    try:
        with written_whole(path) as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", field="output") from error
    return path


def _free_path(folder: Path, name: str, data: bytes) -> Path:
    """Messages of one id, by several publishers or of one that equivocates, get numbers."""
    path, number = folder / f"{name}.proof", 1
    while path.exists() and path.read_bytes() != data:
        number += 1
        path = folder / f"{name}-{number}.proof"
    return path
