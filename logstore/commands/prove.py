"""logstore prove: small files, each a stored message with its proof."""

from __future__ import annotations

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
    StreamArgument,
    ToOption,
    connected,
    make_output,
    parse_span,
)
from logstore.output import count_of

if TYPE_CHECKING:
    from logstore.output import Output
    from logstore.proofs import Proof


def prove(
    stream: StreamArgument,
    timestamps: Annotated[
        list[str] | None, typer.Argument(metavar="[TIMESTAMP]...", help="Times of messages, to the ms.")
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    partition: Annotated[
        int | None, typer.Option("--partition", min=0, metavar="N", help="Only of this one; of a span by default 0.")
    ] = None,
    sequence: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only with this sequence number.")] = None,
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
    from logstore.proofs import Choice, parse_publisher, prove_messages, prove_span, require_one_question
    from logstore.times import parse_time

    output = make_output(as_json)
    choice = Choice(partition, sequence, parse_publisher(publisher))
    if require_one_question(timestamps, choice, (from_,)):
        from_ms, until_ms = parse_span(from_, to)
        with connected(network, rpc, gateway, cache, output) as store:
            proof = prove_span(store, output, stream, partition or 0, from_ms or 0, until_ms)
        _show_span(proof, proof.save(folder), output)
        return
    times = [parse_time(text, now_ms(), "TIMESTAMP") for text in timestamps or ()]
    done: list[dict[str, Any]] = []
    with connected(network, rpc, gateway, cache, output) as store:
        for at_ms in times:
            found = prove_messages(store, output, stream, at_ms, choice)
            done += [_show(proof, proof.save(folder), output) for proof in found]
        output.document(done, lambda out: out.line(count_of(len(done), "proof")))


def _show(proof: Proof, path: Path, output: Output) -> dict[str, Any]:
    from validator.protocol.codec.proof import encode_proof
    from validator.protocol.codec.stored_message import StoredMessage

    assert isinstance(proof.stored, StoredMessage)
    proof_bytes = len(encode_proof(proof.stored.proof))
    if not output.as_json:
        output.line(f"{path}  {len(proof.data)} bytes, {proof_bytes} of them the proof")
    (message,) = proof.describe()
    return {
        "file": str(path),
        "bundle": proof.stored.number,
        "instance": str(proof.stored.proof.window.instance),
        "bytes": len(proof.data),
        "proof_bytes": proof_bytes,
        "message": message,
    }


def _show_span(proof: Proof, path: Path, output: Output) -> None:
    from logstore.stored_range import StoredRange
    from logstore.times import format_time

    stored = proof.stored
    assert isinstance(stored, StoredRange)
    count = sum(len(p.messages) for p in stored.parts)
    values = {
        "file": str(path),
        "stream": stored.part[0],
        "partition": stored.part[1],
        "from": format_time(stored.from_ms),
        "until": format_time(stored.until_ms),
        "messages": count,
        "parts": [str(p.instance) for p in stored.parts],
        "bundles": list(proof.bundles),
        "bytes": len(proof.data),
    }
    output.document(values, lambda out: out.line(f"{path}  {count} messages, {len(proof.data)} bytes"))
