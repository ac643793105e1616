"""Pieces that pages are put together from. Whatever comes from outside goes through ``look.show``."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from validator.broker.explorer.assets import Assets
from validator.broker.explorer.reading import Head
from validator.durations import show_span
from validator.look import show
from validator.protocol.model import StreamPart

MAX_ID = 300
"""A stream id has at most 256 bytes, so it is shown whole."""
FAR_MS = 253_402_300_799_999
"""The last millisecond that a date has a name for; a message may claim a later one."""
SECTIONS = (("streams", "./"), ("bundles", "bundles"), ("brokers", "brokers"))
_BRAND = (
    "<svg viewBox='0 0 24 24' fill='none' stroke='currentColor' stroke-width='2' stroke-linejoin='round'"
    " aria-hidden='true'><path d='M12 2.5 20.5 7v10L12 21.5 3.5 17V7z'/>"
    "<path d='M3.5 7 12 11.5 20.5 7M12 11.5v10'/></svg>"
)
_COPY = (
    "<svg viewBox='0 0 16 16' fill='none' stroke='currentColor' stroke-width='1.4' aria-hidden='true'>"
    "<rect x='5.5' y='5.5' width='8' height='8' rx='1.5'/><path d='M10.5 3V2.5h-8v8H3'/></svg>"
)


def document(
    title: str, section: str, body: str, head: Head, assets: Assets, *, programs: Sequence[str] = (), refresh: int = 0
) -> str:
    """A whole page; ``refresh``: after so many seconds it is loaded anew."""
    nav = "".join(
        f"<a href='{path}'{' aria-current=page' if name == section else ''}>{name.capitalize()}</a>"
        for name, path in SECTIONS
    )
    imports = f"<script type=importmap>{assets.import_map}</script>" if programs else ""
    loads = "".join(f"<link rel=modulepreload href='{assets.url(name)}'>" for name in programs)
    runs = "".join(f"<script type=module src='{assets.url(name)}'></script>" for name in ("every.js", *programs[:1]))
    again = f"<meta http-equiv=refresh content={refresh}>" if refresh else ""
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{title} · Log Store explorer</title>{again}<meta name=color-scheme content='light dark'>"
        f"<link rel=icon href='{assets.url('icon.svg')}'><link rel=stylesheet href='{assets.url('explorer.css')}'>"
        f"{imports}{loads}</head><body><a class=skip href='#main'>Skip to the content</a>"
        f"<header><div><a class=brand href='./'>{_BRAND}<span>Log Store <small>{show(head.network)}</small></span></a>"
        f"<nav aria-label=Sections>{nav}</nav>{_chain(head)}</div></header><main id=main>{body}</main>"
        f"<footer>Served by the broker {short_id(hex_of(head.broker))} · Everything here is its word,"
        f" except what your own browser says it has checked.</footer>{runs}</body></html>"
    )


def _chain(head: Head) -> str:
    if head.block_number is None or head.block_ms is None:
        return "<span class='chain bad'>The chain was not read yet</span>"
    return f"<span class=chain>Block {head.block_number:,} · {ago(head.block_ms, head.now_ms)}</span>"


# --- words


def utc(ms: int) -> str:
    """Absolute, to the millisecond."""
    if not 0 <= ms <= FAR_MS:
        return f"{ms} ms"
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{ms % 1000:03} UTC"


def iso(ms: int) -> str:
    at = datetime.fromtimestamp(min(max(ms, 0), FAR_MS) // 1000, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03}Z"


def ago(ms: int, now_ms: int) -> str:
    """Relative, the absolute time on hover; a program lets it pass."""
    if ms > now_ms:
        return f"<time datetime='{iso(ms)}' title='{utc(ms)}'>in {show_span(ms - now_ms)}</time>"
    return f"<time datetime='{iso(ms)}' title='{utc(ms)}' data-ago>{_largest(now_ms - ms)} ago</time>"


def at(ms: int) -> str:
    """Absolute, to the second."""
    return f"<time datetime='{iso(ms)}' title='{utc(ms)}'>{utc(ms)[:19]}</time>"


def _largest(ms: int) -> str:
    number, unit, *_ = show_span(ms).split()
    return f"{number} {unit}"


def hex_of(data: bytes) -> str:
    return f"0x{data.hex()}"


def copy_button(text: str) -> str:
    whole = html.escape(text)
    return f"<button type=button data-copy='{whole}' title=Copy aria-label='Copy {whole[:80]}'>{_COPY}</button>"


def short(text: str) -> str:
    """The ends of an id of plain letters, the whole of it on hover."""
    shown = text if len(text) <= 18 else f"{text[:8]}…{text[-6:]}"
    return f"<code title='{html.escape(text)}'>{html.escape(shown)}</code>"


def short_id(text: str) -> str:
    return f"<span class=id>{short(text)}{copy_button(text)}</span>"


def whole_id(text: str, name: str = "") -> str:
    """All of it; ``name``: by which a program finds it."""
    field = f" data-field={name}" if name else ""
    return f"<span class=id><code{field}>{show(text, 12_000)}</code>{copy_button(text)}</span>"


def count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Bytes as people say them."""
    if number < 1 << 10:
        return count(number, "byte")
    for unit, bits in (("KiB", 10), ("MiB", 20), ("GiB", 30)):
        if number < 1 << (bits + 10):
            return f"{number / (1 << bits):.1f} {unit}"
    return f"{number / (1 << 40):,.1f} TiB"


# --- links and boxes


def link(page: str, label: str, /, **asked: str | int | None) -> str:
    """``label`` is HTML."""
    return f"<a href='{address(page, **asked)}'>{label}</a>"


def address(page: str, /, **asked: str | int | None) -> str:
    words = urlencode({name.rstrip("_"): value for name, value in asked.items() if value is not None})
    return html.escape(f"{page}?{words}" if words else page)


def part_address(part: StreamPart, **more: str | int | None) -> str:
    return address("stream", id=part[0], partition=part[1], **more)


def stream_name(stream_id: str) -> str:
    return f"<bdi>{show(stream_id, MAX_ID)}</bdi>"


def card(title: str, body: str, aside: str = "") -> str:
    head = f"<div class=row><h2>{title}</h2>{aside}</div>" if title else ""
    return f"<section class=card>{head}{body}</section>"


def figures(*pairs: tuple[str, str, str]) -> str:
    """Numbers that matter: name, value, and a remark, the last two as HTML."""
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{value}{f'<small>{remark}</small>' if remark else ''}</dd></div>"
        for name, value, remark in pairs
    )
    return f"<dl class=cards>{cells}</dl>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Heads that begin with # are numbers, with * take what room there is. Stacked on a phone."""
    columns = [({"#": " class=n", "*": " class=wide"}.get(head[:1], ""), head.lstrip("#*")) for head in heads]
    top = "".join(f"<th{kind} scope=col>{name}</th>" for kind, name in columns)
    starts = [f"<td{kind}>" if kind == " class=wide" else f"<td{kind} data-name='{name}'>" for kind, name in columns]
    body = "".join(
        f"<tr>{''.join(f'{start}<div>{cell}</div></td>' for start, cell in zip(starts, row, strict=True))}</tr>"
        for row in rows
    )
    return f"<div class=scroll><table class=stack><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def empty(title: str, remark: str) -> str:
    return f"<div class=empty><b>{title}</b>{remark}</div>"
