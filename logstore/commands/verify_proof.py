"""Verdicts on proofs as people read them: of one message, and of all messages of a span."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logstore.output import Output, shorten

if TYPE_CHECKING:
    from logstore.stored_message import MessageVerdict
    from logstore.stored_range import RangeVerdict

MAX_SHOWN = 200
"""Characters of a content."""
MAX_SHOWN_MESSAGES = 20


def render_range(output: Output, verdict: RangeVerdict) -> None:
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


def render_message(output: Output, verdict: MessageVerdict) -> None:
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
