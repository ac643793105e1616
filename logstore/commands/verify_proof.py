"""Verdicts on proofs: of one message, and of all messages of a span."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from logstore.commands.options import Asked
from logstore.output import Output, shorten
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.stored_message import MessageVerdict
    from logstore.stored_range import RangeVerdict

MAX_SHOWN = 200
"""Characters of a content."""
MAX_SHOWN_MESSAGES = 20


def verify_proof(path: Path, roots: Sequence[bytes], asked: Asked) -> bool:
    """Show the verdict on a proof; False: the file is none.

    Raises:
        Refused: it does not prove what it says.
    """
    from logstore import stored_message, stored_range
    from validator.protocol.codec.stored_message import KIND

    if not path.is_file():
        return False
    if stored_message.is_of_kind(path, KIND):
        _verify_message(path, roots, asked)
        return True
    if stored_message.is_of_kind(path, stored_range.KIND):
        _verify_range(path, roots, asked)
        return True
    return False


def _verify_message(path: Path, roots: Sequence[bytes], asked: Asked) -> None:
    from logstore.stored_message import ask_contract, describe, verify_stored

    if len(roots) > 1:
        raise ConfigError("--root: a message lies in one bundle; name one root", field="root")
    root = roots[0] if roots else None
    if asked.offline:
        verdict = verify_stored(path, asked.find_network(), root)
    else:
        with asked.connect() as store:
            verdict = ask_contract(path, verify_stored(path, store.network, root), store.reports)
    asked.output.document(describe(verdict), lambda out: _render_message(out, verdict))


def _verify_range(path: Path, roots: Sequence[bytes], asked: Asked) -> None:
    from logstore.stored_range import ask_contract, describe, verify_stored_range

    known = roots or None
    if asked.offline:
        verdict = verify_stored_range(path, asked.find_network(), known)
    else:
        with asked.connect() as store:
            verdict = ask_contract(path, verify_stored_range(path, store.network, known), store.reports)
    asked.output.document(describe(verdict), lambda out: _render_range(out, verdict))


def _render_range(output: Output, verdict: RangeVerdict) -> None:
    from logstore.times import format_time

    stored, accepted = verdict.stored, verdict.accepted
    blocks = [bundle.block_number for bundle in accepted or ()]
    pairs: list[tuple[str, object]] = [
        ("stream", f"{stored.part[0]}/{stored.part[1]}"),
        ("span", f"{format_time(stored.from_ms)} to {format_time(stored.until_ms)}"),
        ("messages", len(verdict.messages)),
        *(
            ("", f"{format_time(m.timestamp_ms)} {show_publisher(m.publisher_id)} {show_content(m.content)}")
            for m in verdict.messages[:MAX_SHOWN_MESSAGES]
        ),
    ]
    if len(verdict.messages) > MAX_SHOWN_MESSAGES:
        pairs.append(("", f"… the first {MAX_SHOWN_MESSAGES}; --json gives all"))
    pairs += [
        ("places", f"{len(stored.parts)} windows and late sets of bundles {', '.join(map(str, verdict.numbers))}"),
        ("contract", "not asked" if accepted is None else f"holds their roots since block {max(blocks, default=0)}"),
    ]
    output.verified(pairs, verdict.proves, verdict.leaves_open)


def _render_message(output: Output, verdict: MessageVerdict) -> None:
    from logstore.times import format_time

    m, stored, accepted = verdict.message, verdict.stored, verdict.accepted
    step, instance = stored.proof.entry, stored.proof.window.instance
    signature = "valid" if verdict.is_signature_checked else "by a contract: only the chain can say"
    pairs: list[tuple[str, object]] = [
        ("message", f"{m.stream_id}/{m.partition} at {format_time(m.timestamp_ms)}, number {m.sequence_number}"),
        ("publisher", f"{show_publisher(m.publisher_id)}, signature {signature}"),
        ("content", show_content(m.content)),
        (
            "place",
            f"{step.index + 1}. of {step.count} messages of its partition in {instance}",
        ),
        ("root", f"0x{stored.root.hex()} of bundle {stored.number}"),
        ("contract", "not asked" if accepted is None else f"holds this root since block {accepted.block_number}"),
    ]
    output.verified(pairs, verdict.proves, verdict.leaves_open)


def show_publisher(publisher_id: bytes) -> str:
    """Cut where it is a key of thousands of digits."""
    from validator.protocol.codec.publisher_text import format_publisher

    return shorten(format_publisher(publisher_id), MAX_SHOWN)


def show_content(content: bytes) -> str:
    """As text where it is text, else as hex; cut where it is long."""
    from logstore.stored_message import decode_text

    text = decode_text(content)
    shown = f"0x{content.hex()}" if text is None else text
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}… ({len(content)} bytes)"
