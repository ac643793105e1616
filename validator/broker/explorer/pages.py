"""Pages of streams, bundles and brokers. Values in, HTML out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from validator.broker.explorer.counting import Rate, Span
from validator.broker.explorer.picture import draw_rate
from validator.broker.explorer.pieces import (
    address,
    ago,
    at,
    card,
    count,
    empty,
    figures,
    hex_of,
    link,
    part_address,
    short,
    short_id,
    size,
    stream_name,
    table,
    utc,
    whole_id,
)
from validator.broker.explorer.reading import (
    PREVIEW,
    STREAMS,
    BrokerLine,
    BundleView,
    Head,
    PartView,
    StreamLine,
    StreamsView,
)
from validator.durations import show_span
from validator.look import show
from validator.net.chain.bundles import AcceptedBundle
from validator.ports.message_store import StoredRow
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.publisher_text import format_publisher
from validator.protocol.model import ContentType, EncryptionType, InstanceKind, Message, PartitionEntry
from validator.protocol.quorum import quorum

ENTRIES = 100
"""Rows of a bundle's page; its manifest has all."""


# --- streams


def streams_page(view: StreamsView, head: Head) -> str:
    title = (
        "<h1>Streams</h1><p class=lead>Every stream that is registered to be stored, and what this broker holds.</p>"
    )
    return title + _figures_of(view, head) + _rate_of_all(view.rate) + _streams(view, head)


def _figures_of(view: StreamsView, head: Head) -> str:
    newest = view.newest
    until = (
        ("Certified until", "—", "no bundle is verified here")
        if newest is None
        else ("Certified until", ago(newest.end_ms, head.now_ms), utc(newest.end_ms)[:19])
    )
    bundle = (
        ("Newest bundle", "—", "")
        if newest is None
        else (
            "Newest bundle",
            link("bundle", f"#{newest.number:,}", number=newest.number),
            f"final in block {newest.block_number:,}",
        )
    )
    rate = view.rate
    messages = ("Messages", "—", "") if rate is None else ("Messages", f"{rate.total:,}", f"in {_span_name(rate.span)}")
    found = ("Streams", f"{view.found:,}", "of this name" if view.asked else "registered")
    return figures(found, messages, bundle, until, ("Brokers", link("brokers", str(view.brokers)), "staked"))


def _rate_of_all(rate: Rate | None) -> str:
    if rate is None:
        return ""
    spans = _spans(rate.span, lambda span: address("./", span=span))
    return card("Messages a second, all streams", draw_rate(rate), spans)


def _span_name(span: Span) -> str:
    return {"10m": "10 minutes", "1h": "an hour", "6h": "6 hours", "1d": "a day", "7d": "a week"}[span]


def _spans(chosen: Span, to: Callable[[Span], str]) -> str:
    items = "".join(
        f"<li><a href='{to(span)}'{' aria-current=true' if span is chosen else ''}>{span}</a>" for span in Span
    )
    return f"<ul class=chips aria-label='How far back'>{items}</ul>"


def _streams(view: StreamsView, head: Head) -> str:
    search = (
        "<form role=search><input type=search name=q aria-label='Part of a stream id' placeholder='Part of a stream id'"
        f" value='{show(view.asked, 256)}'><button>Find</button></form>"
    )
    if not view.lines:
        said = (
            ("No such stream", "Nothing registered has this in its id.")
            if view.asked
            else ("No streams yet", "None is registered.")
        )
        return card("All streams", empty(*said), search)
    rows = [
        [
            link("stream", stream_name(line.stream_id), id=line.stream_id, partition=line.newest_partition),
            _partitions(line.stream_id, line.partitions, None, most=8),
            _newest_of(line, head.now_ms),
        ]
        for line in view.lines
    ]
    more = _pages(view)
    return card("All streams", table(["*Stream", "Partitions", "Newest message"], rows) + more, search)


def _newest_of(line: StreamLine, now_ms: int) -> str:
    if line.newest is None:
        return "<span class=dim>none held</span>"
    return ago(line.newest.key.timestamp_ms, now_ms)


def _pages(view: StreamsView) -> str:
    before = link("./", "← Previous", q=view.asked or None, page=view.page - 1) if view.page else ""
    has_next = (view.page + 1) * STREAMS < view.found
    after = link("./", "Next →", q=view.asked or None, page=view.page + 1) if has_next else ""
    return f"<p class=pages>{before}<span class=spread>{after}</span></p>" if before or after else ""


def _partitions(stream_id: str, number: int, chosen: int | None, *, most: int) -> str:
    items = "".join(
        f"<li><a href='{part_address((stream_id, n))}'{' aria-current=true' if n == chosen else ''}>{n}</a>"
        for n in range(min(number, most))
    )
    rest = f"<li><span>+{number - most}</span>" if number > most else ""
    return f"<ul class=chips>{items}{rest}</ul>"


# --- one stream partition


def part_page(view: PartView, head: Head) -> str:
    stream_id, partition = view.part
    chips = _partitions(stream_id, view.partitions, partition, most=100) if view.partitions > 1 else ""
    certified = "" if view.certified_ms is None else f" · certified until {at(view.certified_ms)} UTC"
    top = (
        f"<p class=crumbs><a href='./'>Streams</a></p><h1>{stream_name(stream_id)}</h1>"
        f"<div class=lead>Partition {chips or partition}{certified}</div>"
    )
    spans = _spans(view.rate.span, lambda span: part_address(view.part, span=span, from_=view.from_ms))
    picture = draw_rate(view.rate, lambda start: part_address(view.part, span=view.rate.span, from_=start))
    rest = "" if view.rate.is_whole else ", older ones not counted"
    said = f"<p class='label n'>{view.rate.total:,} in {_span_name(view.rate.span)}{rest}</p>"
    return top + card("Messages a second", picture + said, spans) + _messages(view, head)


def _messages(view: PartView, head: Head) -> str:
    title = "Newest messages" if view.from_ms is None else f"Messages from {at(view.from_ms)} UTC"
    newest = "" if view.from_ms is None else f"<a href='{part_address(view.part)}'>Newest</a>"
    form = f"{newest}{_time_form(view)}"
    if not view.rows:
        if view.from_ms is not None:
            return card(
                title, empty("Nothing from there on", "This broker holds no later message of this partition."), form
            )
        return card(title, empty("No messages yet", "What is published here appears as it arrives."), form)
    lines: list[str] = []
    edge = view.certified_ms
    descending = view.from_ms is None
    for row, message in view.rows:
        is_certified = edge is not None and message.timestamp_ms < edge
        if edge is not None and is_certified == descending:
            if lines or descending:
                lines.append(f"<li class=edge>certified until {at(edge)}")
            edge = None
        lines.append(_message_line(row, message, head.now_ms))
    more = ""
    if view.has_more and view.from_ms is not None:
        more = f"<p class=pages><span class=spread><a href='{_behind(view)}'>Later →</a></span></p>"
    elif view.has_more:
        more = f"<p class='dim pages'>The newest {len(view.rows)}. Older ones: choose a time, or a bar above.</p>"
    return card(title, f"<ol class=messages>{''.join(lines)}</ol>{more}", form)


def _time_form(view: PartView) -> str:
    stream_id, partition = view.part
    chosen = (
        "" if view.from_ms is None else datetime.fromtimestamp(view.from_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    )
    return (
        f"<form action=stream><input type=hidden name=id value='{show_value(stream_id)}'>"
        f"<input type=hidden name=partition value={partition}>"
        "<span class=label>From, UTC</span>"
        f"<input type=datetime-local name=at step=1 aria-label='From this time on, UTC' value='{chosen}'>"
        "<button>Go</button></form>"
    )


def show_value(text: str) -> str:
    """As the value of a form's field: what is not printable stays what it is, since it is sent back."""
    return "".join(f"&#{ord(char)};" if not (char.isascii() and char.isalnum()) else char for char in text)


def _behind(view: PartView) -> str:
    key = view.rows[-1][0].key
    after = f"{key.sequence_number}.{key.publisher_id.hex()}.{key.leaf.hex()}.{key.msg_chain_id}"
    return part_address(view.part, span=view.rate.span, from_=key.timestamp_ms, after=after)


def _message_line(row: StoredRow, message: Message, now_ms: int) -> str:
    place = address(
        "message",
        id=message.stream_id,
        partition=message.partition,
        timestamp=message.timestamp_ms,
        leaf=row.key.leaf.hex(),
    )
    when = f"{ago(message.timestamp_ms, now_ms)}<span class='clock dim'>{utc(message.timestamp_ms)[11:23]}</span>"
    publisher = short(format_publisher(message.publisher_id))
    return f"<li><a href='{place}'>{when}<span>{publisher}</span><bdi class=content>{preview(message)}</bdi></a>"


def preview(message: Message) -> str:
    """The beginning of a content, on one line."""
    content = message.content
    if message.encryption_type is not EncryptionType.NONE:
        return f"<span class=dim>encrypted, {size(len(content))}</span>"
    if message.content_type is ContentType.BINARY:
        return f"<code>{content[:40].hex()}</code> <span class=dim>{size(len(content))}</span>"
    try:
        text = content[: 4 * PREVIEW + 4].decode(errors="ignore" if len(content) > 4 * PREVIEW else "strict")
    except UnicodeDecodeError:
        return f"<code>{content[:40].hex()}</code> <span class=dim>{size(len(content))}</span>"
    if not text:
        return "<span class=dim>empty</span>"
    return f"<code>{show(text, PREVIEW)}</code>"


# --- bundles


def bundles_page(bundles: Sequence[AcceptedBundle], next_number: int | None, head: Head, *, is_following: bool) -> str:
    title = (
        "<h1>Bundles</h1><p class=lead>Every bundle is one file on Arweave: some windows and one late set, each"
        " certified by the committee. The contract holds one root for all that lies in it.</p>"
    )
    if not bundles:
        said = (
            "The first appears when its report is final."
            if is_following
            else "This broker reads no bundles from Arweave."
        )
        return title + card("", empty("No bundles yet", said))
    rows = [
        [
            link("bundle", f"#{bundle.number:,}", number=bundle.number),
            at(bundle.first_ms),
            show_span(bundle.end_ms - bundle.first_ms),
            ago(bundle.end_ms, head.now_ms),
            short_id(encode_storage_id(bundle.storage_id)),
            short_id(hex_of(bundle.root)),
            f"{bundle.block_number:,}",
        ]
        for bundle in bundles
    ]
    older = (
        ""
        if next_number is None
        else f"<p class=pages><span class=spread>{link('bundles', 'Older →', to=next_number)}</span></p>"
    )
    heads = ["Bundle", "From, UTC", "Covers", "Ended", "Arweave id", "Root", "#Block"]
    return title + card("", table(heads, rows) + older)


def bundle_page(view: BundleView) -> str:
    opened, bundle = view.opened, view.opened.bundle
    manifest = opened.manifest
    sets = (*manifest.windows, manifest.late)
    messages = sum(c.outcome.count for c in sets)
    steps = " · ".join(
        link("bundle", label, number=number)
        for number, label in ((bundle.number - 1, "← Previous"), (bundle.number + 1, "Next →"))
        if 0 <= number <= view.newest
    )
    top = (
        f"<p class='crumbs row'><a href=bundles>Bundles</a><span>{steps}</span></p><h1>Bundle #{bundle.number:,}</h1>"
        f"<p class=lead>{at(bundle.first_ms)} to {at(bundle.end_ms)} UTC</p>"
    )
    numbers = figures(
        ("Messages", f"{messages:,}", f"{manifest.late.outcome.count:,} of them late"),
        ("Windows", f"{len(manifest.windows):,}", f"{show_span(bundle.end_ms - bundle.first_ms)} in all"),
        ("Contents", size(sum(e.canonical_bytes for c in sets for e in c.outcome.entries)), "as agreed on, unpacked"),
        ("Committee", f"{len(view.config.committee)}", f"{quorum(len(view.config.committee))} decide"),
        ("Report", f"{bundle.block_number:,}", "block of the contract's chain"),
    )
    fields = [
        ("Root", whole_id(hex_of(bundle.root))),
        ("Arweave id", whole_id(encode_storage_id(bundle.storage_id))),
        ("Root before", whole_id(hex_of(manifest.header.previous_root))),
        ("Config digest", whole_id(hex_of(manifest.header.config_digest))),
        ("Committee", "<br>".join(short_id(hex_of(member)) for member in view.config.committee)),
        ("As data", f"<a href='../v1/bundles/{bundle.number}'>manifest</a>, canonical bytes"),
    ]
    return top + numbers + card("What the contract holds", fields_of(fields)) + _sets(view)


def fields_of(pairs: Sequence[tuple[str, str]]) -> str:
    return f"<dl class=fields>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in pairs)}</dl>"


def _sets(view: BundleView) -> str:
    rows: list[list[str]] = []
    total = 0
    for certified in (*view.opened.manifest.windows, view.opened.manifest.late):
        outcome = certified.outcome
        is_window = outcome.instance.kind is InstanceKind.WINDOW
        name = f"{utc(outcome.instance.number)[11:19]}" if is_window else "late set"
        signed = f"{len(certified.certificate.signatures)} of {len(view.config.committee)}"
        total += max(1, len(outcome.entries))
        if not outcome.entries and len(rows) < ENTRIES:
            rows.append([name, "<span class=dim>empty</span>", "0", "0", signed])
        for entry in outcome.entries[: max(0, ENTRIES - len(rows))]:
            rows.append([name, _entry_name(entry), f"{entry.count:,}", size(entry.canonical_bytes), signed])
    rest = (
        f"<p class='dim pages'>The first {ENTRIES} of {count(total, 'entry', 'entries')}.</p>"
        if total > ENTRIES
        else ""
    )
    heads = ["Window, UTC", "*Stream partition", "#Messages", "#Size", "#Signed by"]
    return card("Windows and what they hold", table(heads, rows) + rest)


def _entry_name(entry: PartitionEntry) -> str:
    names = ", ".join(flag.name.lower() for flag in entry.flags if flag.name)
    flags = f" <span class=warn>{show(names)}</span>" if names else ""
    place = f"<a href='{part_address(entry.stream_part)}'>{stream_name(entry.stream_id)}</a>"
    return f"{place} <span class=dim>{entry.partition}</span>{flags}"


# --- brokers


def brokers_page(lines: Sequence[BrokerLine], head: Head) -> str:
    title = (
        "<h1>Brokers</h1><p class=lead>Staked nodes that store and answer. Each says once a second, signed, what it"
        " holds; here is what this broker has heard.</p>"
    )
    if not lines:
        return title + card("", empty("No brokers yet", "No staked node names a URL, or the chain was not read."))
    rows = [
        [
            f"{short_id(hex_of(line.node.address))}<br><bdi class=dim>{show(line.node.http_url or '')}</bdi>",
            _state_of(line),
            _heard(line, head.now_ms),
            _claims_bundle(line),
            _claims_count(line),
            _stake(line.node.stake),
        ]
        for line in lines
    ]
    return title + card("", table(["*Broker", "State", "Heartbeat", "#Bundle", "#Messages", "#Stake"], rows))


def _stake(units: int) -> str:
    whole = units / 10**18
    return f"{whole:,.0f}" if whole >= 1_000 else f"{whole:.4g}" if whole >= 0.001 else "< 0.001"


def _state_of(line: BrokerLine) -> str:
    lies = "".join(f"<br><span class=bad>{show(lie)}: {times:,}</span>" for lie, times in line.lies.items())
    if line.is_this:
        return f"<span class='good state'><span class=dot></span>this one</span>{lies}"
    if line.is_silent:
        return f"<span class='warn state'><span class=dot></span>silent</span>{lies}"
    return f"<span class='good state'><span class=dot></span>heard</span>{lies}"


def _heard(line: BrokerLine, now_ms: int) -> str:
    if line.heard is None:
        return "<span class=dim>—</span>"
    off = line.heard.clock_off_ms
    return ago(line.heard.heard_ms, now_ms) + (f"<br><span class=warn>clock {off / 1000:+.0f} s</span>" if off else "")


def _claims_bundle(line: BrokerLine) -> str:
    claim = None if line.heard is None else line.heard.heartbeat.bundle
    return "<span class=dim>—</span>" if claim is None else link("bundle", f"#{claim[0]:,}", number=claim[0])


def _claims_count(line: BrokerLine) -> str:
    if line.heard is None:
        return "<span class=dim>—</span>"
    heartbeat = line.heard.heartbeat
    recent = f"<br><span class=dim>{heartbeat.recent.count:,} in {show_span(heartbeat.recent.length_ms)}</span>"
    return f"{heartbeat.kept.count + heartbeat.recent.count:,}{recent}"


# --- what is not there


def nothing_page(title: str, reason: str) -> str:
    """``reason``: text."""
    return card("", empty(show(title), f"{show(reason, 400)}<br><a href='./'>All streams</a>"))
