"""logstore query: what brokers hold of a stream between two times, checked as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logstore.commands.export import open_target, watched
from logstore.commands.options import (
    BrokerOption,
    CacheOption,
    FromOption,
    JsonOption,
    KeyOption,
    NetworkOption,
    PartitionOption,
    RpcOption,
    StreamArgument,
    ToOption,
    connected,
    make_output,
    parse_span,
)
from logstore.output import count_of
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.answer_check import Row
    from logstore.answer_proof import AnswerProof
    from logstore.output import Output

_FOLLOW_ALONE = "--follow: not together with --to, --last, --output, --format"


def query(
    stream: StreamArgument,
    from_: FromOption = None,
    to: ToOption = None,
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=1, max=10_000, help="The newest N, instead of --from.")
    ] = None,
    partition: PartitionOption = 0,
    form: Annotated[
        str, typer.Option("--format", metavar="ndjson|csv|arrow|parquet|raw", help="raw: canonical CBOR.")
    ] = "ndjson",
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: standard output.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Messages as they come, from --from (default: now), until Ctrl-C.")
    ] = False,
    verify: Annotated[
        str | None,
        typer.Option(
            "--verify",
            metavar="proof|signatures|none",
            help="How much of the answer is checked. Default: proof; with --follow signatures.",
        ),
    ] = None,
    max_price: Annotated[
        str | None, typer.Option("--max-price", metavar="AMOUNT", help="Pay by receipts, at most so much a MiB.")
    ] = None,
    max_total: Annotated[
        str | None, typer.Option("--max-total", metavar="AMOUNT", help="And never more than this: 1LSAN, 500base.")
    ] = None,
    broker: BrokerOption = None,
    key: KeyOption = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the messages that brokers hold of a span of time (default: the last hour), each checked before it is shown.

    Certified history is proven complete up to roots that the contract holds; what is newer rests on a broker's signed
    word, and which one is said at the end, on standard error. With --json that is a document on standard output, so
    --output is needed. A file is there when all of it is verified, or not at all.

    With --follow messages come as lines of JSON, each a few seconds behind its time, until Ctrl-C, which is status 0.

    Status 0: verified; 1: refused, and what differs is named, or denied by a broker, in its words; 2: wrong words; 3:
    no broker could be reached.

    Example: logstore query 0x…/sensors --from -1h --format csv
    """
    from logstore.answer_export import write_answer
    from logstore.answer_proof import describe
    from logstore.answers import parse_verify_level

    _require_target(form, file, as_json=as_json, follow=follow)
    level = parse_verify_level(verify or ("signatures" if follow else "proof"))
    if last is not None and (from_ is not None or to is not None):
        raise ConfigError("--last: not together with --from and --to", field="last")
    output = make_output(as_json)
    options: dict[str, Any] = {
        "partition": partition,
        "brokers": broker or (),
        "max_price": max_price,
        "max_total": max_total,
    }
    if follow:
        if to is not None or last is not None:
            raise ConfigError(_FOLLOW_ALONE, field="follow")
        with connected(network, rpc, None, cache, output, key) as store:
            _follow(store.looks(stream, from_ or "now", verify=level, **options), output)
        return
    from_ms, to_ms = parse_span(from_, to, "-1h")
    with (
        connected(network, rpc, None, cache, output, key) as store,
        store.query(stream, from_ms or 0, to_ms, verify=level, last=last, **options) as answer,
        open_target(file, is_text=form in ("ndjson", "csv")) as out,
        watched(output, file),
    ):
        write_answer(form, answer, out)
        proof = answer.proof
    if as_json:
        output.document({"file": str(file), "format": form, **describe(proof)}, lambda _: None)
    else:
        _say(output, proof, describe(proof)["verdict"])


def _require_target(form: str, file: Path | None, *, as_json: bool, follow: bool) -> None:
    """Raises ConfigError where what is asked for cannot go where it is to go."""
    from logstore.answer_export import FORMS, PARQUET

    if form not in FORMS:
        raise ConfigError(f"--format: {form!r} is none of {', '.join(FORMS)}", field="format")
    if follow and (form != "ndjson" or file is not None):
        raise ConfigError(_FOLLOW_ALONE, field="follow")
    if form == PARQUET and file is None:
        raise ConfigError("--format parquet: name a file with --output", field="output")
    if as_json and file is None and not follow:
        raise ConfigError("--json: the messages take standard output; name a file with --output", field="output")


def _say(output: Output, proof: AnswerProof, verdict: Any) -> None:
    output.note(f"{verdict}: {count_of(proof.count, 'message')}; {proof.proves}")
    if proof.leaves_open:
        output.note(f"leaves open: {proof.leaves_open}")


def _follow(looks: Iterator[list[Row]], output: Output) -> None:
    from logstore.answer_export import write_ndjson
    from logstore.following import pace

    count = 0

    def counted() -> Iterator[list[Row]]:
        nonlocal count
        for rows in pace(looks):
            count += len(rows)  # before they leave: who has read the last one may end us before we are back
            yield rows

    try:
        with open_target(None, is_text=True) as out:
            write_ndjson(counted(), out)
    except KeyboardInterrupt:
        output.note(f"ended after {count_of(count, 'message')}")
