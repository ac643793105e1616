"""The status page: what the fleet does, why a window waits, and who disagreed, on one screen."""

from __future__ import annotations

import base64
import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from validator.ports.states import AnnouncedState, BundleState, ReportState, UploadState, WindowState
from validator.protocol.model import Address
from validator.store.view.status import (
    BundleView,
    Check,
    HeadView,
    ReportView,
    RoundView,
    Status,
    shown_state,
    waits_for,
)

REFRESH_S = 2
MAX_TEXT = 200
SHOWN_WINDOWS = 24
"""Rows of windows on the page; all of them are in status.json."""

_STYLE = """
:root{color-scheme:light dark;font:13px/1.35 system-ui,sans-serif}body{margin:.8em 1.2em}
h1{font-size:1.2em;margin:0 0 .4em}h2{font-size:1em;margin:.2em 0}main{display:flex;flex-wrap:wrap;gap:.8em 2.4em;
align-items:start}section{max-width:100%;overflow-x:auto}section.wide{flex-basis:100%}
table{border-collapse:collapse}td,th{padding:.1em 1em .1em 0;text-align:left;vertical-align:top;
border-bottom:1px solid #8883;white-space:nowrap}td.text{white-space:normal;overflow-wrap:anywhere;
min-width:12em;max-width:60em}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{font:12px ui-monospace,monospace}
.good{color:#197a3a}.warn{color:#a15c00}.bad{color:#c22}.dim{opacity:.65}b.chip{margin-right:1em}
"""

_GOOD = frozenset(
    {WindowState.AGREED, WindowState.HELD, BundleState.VERIFIED, BundleState.FINAL, ReportState.ATTESTED, "decided"}
)
_BAD = frozenset({AnnouncedState.REFUSED, UploadState.DROPPED, ReportState.REVERTED})


def render_status(status: Status, checks: Sequence[Check]) -> str:
    """The whole page."""
    problems = [check for check in checks if not check.ok]
    who = _address(status.address) if status.address is not None else "observer"
    sections = [
        _section("Windows", _windows(status), wide=True),
        _section("Late sets", _late(status.late)),
        _section("Bundles and uploads", _bundles(status.bundles)),
        _section("Reports", _reports(status.reports)),
        _section("Gateways and wallet", _weave(status)),
        _section("Members", _members(status)),
        _section("Brokers", _brokers(status)),
        _section("Refused records", _pairs(status.invalid_rejected) or _none()),
        _section(f"Evidence of double votes: {status.evidence_count}", _evidence(status)),
        _section("Warnings and alarms", _events(status), wide=True),
    ]
    return _document(
        f"Log Store validator {who}",
        f"<h1>Log Store validator <code>{who}</code> on {show(status.network)}</h1>"
        f"<p>{_heads(status)} <b class=chip>{status.due} due</b>{_pairs(status.window_counts)}</p>"
        + "".join(f"<p class=bad>not ready: {show(c.name)}: {show(c.detail)}</p>" for c in problems)
        + f"<main>{''.join(sections)}</main>",
    )


def render_problem(reason: str) -> str:
    """Shown while the database does not answer; it refreshes itself too."""
    return _document("Log Store validator", f"<h1>Log Store validator</h1><p class=bad>{show(reason)}</p>")


def show(text: object, limit: int = MAX_TEXT) -> str:
    """Text from anywhere as HTML: escaped, cut, and with control characters spelt out as \\x1b or \\u202e."""
    whole = str(text)
    spelt = "".join(char if _is_printable(char) else _spell(char) for char in whole[:limit])
    return html.escape(spelt + ("…" if len(whole) > limit else ""))


def _is_printable(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn")


def _spell(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


# --- sections -------------------------------------------------------------------------------------------


def _windows(status: Status) -> str:
    rows = []
    for window in status.windows[-SHOWN_WINDOWS:][::-1]:
        state = shown_state(window)
        rows.append(
            [
                f"<code>{window.start_ms}</code> <span class=dim>{_clock(window.start_ms)}</span>",
                _state(state),
                *_round_cells(window.round),
                _text(waits_for(window, status.now_ms)),
                _number(window.bundle),
            ]
        )
    heads = ["window", "state", "#round", "step", "leader", "votes", "waits for", "#bundle"]
    older = len(status.windows) - SHOWN_WINDOWS
    note = f"<p class=dim>and {older} more in <a href=status.json>status.json</a></p>" if older > 0 else ""
    return _table(heads, rows) + note


def _late(late: Iterable[RoundView]) -> str:
    rows = [
        [_number(view.instance.number), _state(view.state), *_round_cells(view), _text(view.waits_for)] for view in late
    ]
    return _table(["#bundle", "state", "#round", "step", "leader", "votes", "waits for"], rows)


def _round_cells(view: RoundView | None) -> list[str]:
    if view is None:
        return ["<td class=n>", "", "", ""]
    votes = ", ".join(f"{count} {show(kind)}" for kind, count in view.votes.items() if count)
    leader = "" if view.leader is None else f"<code>{_address(view.leader)}</code>"
    return [_number(view.round), show(view.step), leader, votes]


def _bundles(bundles: Iterable[BundleView]) -> str:
    rows = []
    for bundle in bundles:
        uploads = "<br>".join(
            f"<code>{_storage_id(upload.storage_id)}</code> {_state(upload.state)} "
            f"{'own' if upload.own else 'by'} {'' if upload.by is None else _address(upload.by)} {show(upload.reason)}"
            for upload in bundle.uploads
        )
        root = "" if bundle.root is None else f"<code>0x{bundle.root.hex()[:12]}</code>"
        rows.append(
            [
                _number(bundle.number),
                _state(bundle.state),
                _number(bundle.messages),
                _number(bundle.size),
                root,
                f"<td class=text>{uploads}",
            ]
        )
    return _table(["#number", "state", "#messages", "#bytes", "root", "uploads"], rows[::-1])


def _weave(status: Status) -> str:
    rows = [
        [
            show(gateway.host),
            f"<span class={'bad' if gateway.state == 'open' else 'good'}>{show(gateway.state)}</span>",
            _number(gateway.failures),
            f"<span class=dim>{_clock(gateway.changed_ms)}</span>",
            _text(gateway.error),
        ]
        for gateway in status.gateways
    ]
    paid, wallet = status.payments, status.wallet
    lines = [f"{paid.headers} headers paid for {paid.bundles} bundles"]
    if paid.twice:
        lines.append(f"<span class=bad>{paid.twice} bundles paid more than once</span>")
    if paid.own_messages:
        lines.append(f"own: {paid.own_winston // paid.own_messages} winston a message")
    if wallet is not None:
        lines.append(f"wallet {wallet.balance} winston; a header costs {wallet.base}, each chunk {wallet.step}")
    return _table(["gateway", "state", "#failures", "since", "after"], rows) + f"<p>{'; '.join(lines)}</p>"


def _reports(reports: Iterable[ReportView]) -> str:
    rows = [
        [
            _number(report.number),
            _state(report.state),
            f"<code>{_storage_id(report.storage_id)}</code>",
            f"<td class=text>{len(report.signers)}: {', '.join(_address(s) for s in report.signers)}",
            "" if report.transaction is None else f"<code>0x{report.transaction.hex()[:12]}</code>",
            _number(None if report.transaction is None else report.gas_used),
        ]
        for report in reports
    ]
    return _table(["#number", "state", "storage id", "attested by", "transaction", "#gas"], rows[::-1])


def _members(status: Status) -> str:
    kinds = ("observation", "proposal", "prevote", "precommit")
    rows = [
        [
            f"<code>{_address(member.address)}</code>{' (this one)' if member.address == status.address else ''}",
            *(_number(member.statements.get(kind, 0)) for kind in kinds),
            f"<td class='n{' bad' if member.evidence else ''}'>{member.evidence}",
        ]
        for member in status.members
    ]
    return _table(["member", *(f"#{kind}s" for kind in kinds), "#evidence"], rows)


def _brokers(status: Status) -> str:
    rows = [
        [
            f"<code>{_address(broker.address)}</code>",
            _number(broker.served),
            f"<td class='n{' warn' if broker.missed else ''}'>{broker.missed:,}",
            f"<td class=text>{_pairs(broker.invalid)}",
        ]
        for broker in status.brokers
    ]
    return _table(["broker", "#bytes served", "#bytes missed", "refused records"], rows)


def _evidence(status: Status) -> str:
    rows = [
        [
            f"<code>{_address(item.signer)}</code>",
            show(item.instance),
            _number(item.round),
            show(item.kind),
            _clock(item.noticed_ms),
        ]
        for item in status.evidence[:10]
    ]
    return _table(["signer", "instance", "#round", "kind", "noticed"], rows)


def _events(status: Status) -> str:
    rows = [
        [
            _clock(event.at_ms),
            f"<span class={'bad' if event.level == 'error' else 'warn'}>{show(event.level)}</span>",
            show(event.event),
            _text(event.fields),
        ]
        for event in status.events
    ]
    return _table(["time", "level", "event", "fields"], rows)


def _heads(status: Status) -> str:
    parts = []
    for name, head in (("head", status.head), ("finalised", status.finalised)):
        parts.append(f"<b class=chip>{name} {_head(head, status.now_ms)}</b>")
    return "".join(parts)


def _head(head: HeadView | None, now_ms: int) -> str:
    if head is None:
        return "<span class=bad>unknown</span>"
    age_s = (now_ms - head.seen_ms) // 1000
    return f"{head.number} <span class={'bad' if age_s > 60 else 'dim'}>{age_s} s ago</span>"


# --- pieces ---------------------------------------------------------------------------------------------


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content="{REFRESH_S}">'
        f"<title>{title}</title><style>{_STYLE}</style>{body}</html>"
    )


def _section(title: str, body: str, *, wide: bool = False) -> str:
    return f"<section{' class=wide' if wide else ''}><h2>{show(title)}</h2>{body}</section>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """``heads`` that begin with # are numbers; a cell may bring its own <td>."""
    if not rows:
        return _none()
    head = "".join(f"<th class=n>{h[1:]}" if h.startswith("#") else f"<th>{h}" for h in heads)
    body = "".join("<tr>" + "".join(c if c.startswith("<td") else f"<td>{c}" for c in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _none() -> str:
    return "<p class=dim>none</p>"


def _pairs(counts: Mapping[str, int]) -> str:
    return " ".join(f"<b class=chip>{count:,} {show(name)}</b>" for name, count in counts.items())


def _state(state: str) -> str:
    kind = "good" if state in _GOOD else "bad" if state in _BAD else ""
    return f"<span class='{kind}'>{show(state)}</span>"


def _number(value: int | None) -> str:
    return f"<td class=n>{'' if value is None else format(value, ',')}"


def _text(text: str) -> str:
    return f"<td class=text>{show(text)}"


def _address(address: Address) -> str:
    return f"0x{address.hex()[:8]}…"


def _storage_id(storage_id: bytes) -> str:
    return base64.urlsafe_b64encode(storage_id).decode()[:10] + "…"


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
