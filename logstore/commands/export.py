"""logstore export: messages of a span of time, for other programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from logstore.commands.options import (
    CacheOption,
    FromOption,
    GatewayOption,
    JsonOption,
    NetworkOption,
    RpcOption,
    ToOption,
    VerifyOption,
    connected,
    make_output,
    parse_span,
    parse_verify,
)
from logstore.files import written_whole
from logstore.output import count_of
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.output import Output


def export(
    from_: FromOption = None,
    to: ToOption = None,
    stream: Annotated[str | None, typer.Option(metavar="ID", help="Only of this stream.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only of this partition.")] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="ndjson|csv|arrow|raw", help="raw: canonical CBOR.")
    ] = "ndjson",
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: standard output.")
    ] = None,
    verify: VerifyOption = "bundle",
    network: NetworkOption = None,
    rpc: RpcOption = None,
    gateway: GatewayOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the messages of a span of time (default: the last hour), in order; their bundles are verified first.

    With --json what was written is told as a document, so --output is needed.

    Example: logstore export --from -1d --format csv -o messages.csv
    """
    from logstore.export import FORMATS, export_messages
    from logstore.selection import select_files

    if form not in FORMATS:
        raise ConfigError(f"--format: {form!r} is none of {', '.join(FORMATS)}", field="format")
    if as_json and file is None:
        raise ConfigError("--json: the messages take standard output; name a file with --output", field="output")
    is_verified = parse_verify(verify)
    from_ms, to_ms = parse_span(from_, to, "-1h")
    output = make_output(as_json)
    with connected(network, rpc, gateway, cache, output) as store:
        files = select_files(store.reports, store.bundles, output, from_ms, to_ms, stream_id=stream, verify=is_verified)
        with open_target(file, is_text=form in ("ndjson", "csv")) as out, watched(output, file):
            count = export_messages(form, files, (stream, partition), from_ms, to_ms, out)
    if file is not None:
        values = {"file": str(file), "format": form, "messages": count, "bundles": [f.bundle.number for f in files]}
        output.document({**values, "verified": is_verified}, lambda o: o.line(f"{file}  {count_of(count, 'message')}"))


def watched(output: Output, file: Path | None) -> AbstractContextManager[None]:
    """Something that moves while nothing else does: not beside messages on the same terminal."""
    return nullcontext() if file is None and sys.stdout.isatty() else output.busy("writing")


@contextmanager
def open_target(file: Path | None, *, is_text: bool) -> Iterator[BinaryIO]:
    """Where the messages go. A file is there complete, or not at all. Raises ConfigError."""
    if file is None:
        if sys.stdout.isatty() and not is_text:
            raise ConfigError("--format: that is not for a terminal; name a file with --output", field="format")
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with written_whole(file) as out:
            yield out
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}", field="output") from error
