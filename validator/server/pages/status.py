"""The status page: what the fleet does, why a window waits, and who disagreed, on one screen."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from validator.durations import show_span
from validator.look import show
from validator.ports.states import AnnouncedState, BundleState, ReportState, UploadState, WindowState
from validator.protocol.model import Address
from validator.quantities import show_count
from validator.server.causes import CauseFound, find_causes
from validator.server.pages.look import SCRIPT, STYLE
from validator.server.pages.words import legend, state, term
from validator.server.surroundings import PeerSeen, Surroundings
from validator.server.verdict import Level, Verdict, judge, waits_for
from validator.steps.seat import describe_seat
from validator.store.view.status import (
    BundleView,
    CertificateView,
    Check,
    HeadView,
    ReportView,
    RoundView,
    Status,
    UploadView,
    shown_state,
)

SHOWN_WINDOWS = 24
"""Rows of windows on the page; all of them are in status.json."""
NO_PROGRAM_S = 10
"""Where programs may not run, the page is loaded anew so often."""
CLOCK_MS = 5_000
FEW = 10
"""Uploads, below which the wallet is shown as low."""

_GOOD = frozenset(
    {WindowState.AGREED, WindowState.HELD, BundleState.VERIFIED, BundleState.FINAL, ReportState.ATTESTED, "decided"}
)
_BAD = frozenset({AnnouncedState.REFUSED, UploadState.DROPPED, ReportState.REVERTED})


def render_status(status: Status, checks: Sequence[Check], around: Surroundings | None = None) -> str:
    """The whole page."""
    around = around or Surroundings()
    causes, verdict = find_causes(status), judge(status, checks, around)
    named = _Names(around, status.address)
    who = "" if status.address is None else f" {_id(_hex(status.address))}"
    groups = (
        ("Agreement", _windows(status, causes, named), _late(status, named), _members(status, around, named)),
        ("Archive", _bundles(status.bundles, named), _weave(status)),
        ("Settlement", _reports(status.reports, named), _balances(status, around)),
        ("Sources", _brokers(status), _refused(status)),
        ("Trouble", _evidence(status, named), _events(status)),
    )
    body = "".join(_group(title, sections) for title, *sections in groups)
    return _document(
        f"{verdict.level.value}: Log Store validator on {show(status.network)}",
        f"<h1>Log Store validator{who} on {show(status.network)}</h1>{_live('head', _head(status, around, verdict))}"
        f"{_live('groups', body)}{legend()}",
    )


def render_problem(reason: str) -> str:
    """Shown while the database does not answer; it refreshes itself too."""
    problem = f"<p class='verdict bad'>● {show(reason)}</p>"
    return _document("Log Store validator", f"<h1>Log Store validator</h1>{_live('head', problem)}")


# --- the head -------------------------------------------------------------------------------------------


def _head(status: Status, around: Surroundings, verdict: Verdict) -> str:
    colour = {Level.HEALTHY: "good", Level.DEGRADED: "warn", Level.OUT: "bad"}[verdict.level]
    rest = "".join(f"<li>{show(reason)}" for reason in verdict.reasons[1:])
    reasons = f"<ul class=reasons>{rest}</ul>" if rest else ""
    seat = ""
    if around.seat is not None:
        seat = f"<p>{show(describe_seat(around.seat, status.now_ms))}{_countdown(around, status)}"
    facts = "".join(f"<span>{fact}</span>" for fact in _facts(status, around))
    return f"<p class='verdict {colour}'>● {show(verdict.text)}</p>{reasons}{seat}<p class=facts>{facts}</p>"


def _countdown(around: Surroundings, status: Status) -> str:
    epoch = None if around.seat is None else around.seat.epoch
    if epoch is None:
        return ""
    return f"; {term('epoch')} ends in <b>{show_span(epoch.end_ms - status.now_ms)}</b>"


def _facts(status: Status, around: Surroundings) -> list[str]:
    """What is counted, in short."""
    facts = [
        f"{term('head')} {_block(status.head, status.now_ms)}",
        f"finalised {_block(status.finalised, status.now_ms)}",
    ]
    if around.peers:
        facts.append(f"peers <b>{around.reachable} of {len(around.peers)}</b> reachable")
    facts.append(f"<b>{status.due}</b> due")
    counts = ", ".join(f"<b>{count:,}</b> {show(state)}" for state, count in status.window_counts.items())
    facts.append(f"windows: {counts}")
    return facts


def _block(head: HeadView | None, now_ms: int) -> str:
    if head is None:
        return "<span class=bad>unknown</span>"
    age_ms = now_ms - head.timestamp_s * 1000
    return f"<b>{head.number}</b> <span class={'bad' if age_ms > 60_000 else 'dim'}>{show_span(age_ms)} old</span>"


# --- sections -------------------------------------------------------------------------------------------


class _Names:
    """Members by the host of their URL and their address."""

    def __init__(self, around: Surroundings, own: Address | None) -> None:
        self._names, self._own = around.names, own

    def __call__(self, address: Address) -> str:
        name = "this one" if address == self._own else self._names.get(address, "")
        return f"{show(name)} {_id(_hex(address))}" if name else _id(_hex(address))


def _windows(status: Status, causes: Sequence[CauseFound], named: _Names) -> str:
    certified = {certificate.instance: certificate for certificate in status.certificates}
    rows = []
    for window in status.windows[-SHOWN_WINDOWS:][::-1]:
        view = window.round
        rows.append(
            [
                f"<code class=id>{window.start_ms}</code> <span class=dim>{_clock(window.start_ms)}</span>",
                _state(shown_state(window)),
                *_round_cells(view, None if view is None else certified.get(view.instance), named),
                _text(waits_for(window, status, causes)),
                _number(window.bundle),
            ]
        )
    heads = ["window", "state", "#round", "step", "leader", "said", "waits for", "#bundle"]
    older = len(status.windows) - SHOWN_WINDOWS
    note = f"<p class=dim>and {older} more in <a href=status.json>status.json</a></p>" if older > 0 else ""
    return _section("Windows", _table(heads, rows) + note)


def _late(status: Status, named: _Names) -> str:
    certified = {certificate.instance: certificate for certificate in status.certificates}
    rows = [
        [
            _number(view.instance.number),
            _state(view.state),
            *_round_cells(view, certified.get(view.instance), named),
            _text(view.waits_for),
        ]
        for view in status.late
    ]
    return _section("Late sets", _table(["#bundle", "state", "#round", "step", "leader", "said", "waits for"], rows))


def _round_cells(view: RoundView | None, certificate: CertificateView | None, named: _Names) -> list[str]:
    """Of a decided round the certificate's signers count, not what precommits happened to arrive here."""
    if view is None:
        return ["<td class=n>", "", "", ""]
    if certificate is not None:
        said = f"{term('certificate')} of {len(certificate.signers)}"
    else:
        said = ", ".join(show_count(count, show(kind)) for kind, count in view.votes.items() if count)
    leader = "" if view.leader is None else named(view.leader)
    return [_number(view.round), show(view.step), leader, said]


def _members(status: Status, around: Surroundings, named: _Names) -> str:
    kinds = ("observation", "proposal", "prevote", "precommit")
    seen = {peer.address: peer for peer in around.peers}
    spoken = {member.address: member for member in status.members}
    rows = []
    for address in sorted(spoken.keys() | seen.keys()):
        member = spoken.get(address)
        said = {} if member is None else member.statements
        evidence = 0 if member is None else member.evidence
        rows.append(
            [
                named(address),
                _answers(seen.get(address)),
                *(_number(said.get(kind, 0)) for kind in kinds),
                f"<td class='n{' bad' if evidence else ''}'>{evidence}",
            ]
        )
    return _section("Members", _table(["member", "answers", *(f"#{kind}s" for kind in kinds), "#evidence"], rows))


def _answers(peer: PeerSeen | None) -> str:
    if peer is None:
        return ""
    if peer.clock_ms is None:
        return f"<td class='text bad'>no: {show(peer.error)}"
    off = f", clock {peer.clock_ms / 1000:+.1f} s" if abs(peer.clock_ms) > CLOCK_MS else ""
    return f"<span class={'warn' if off else 'good'}>yes{off}</span>"


def _bundles(bundles: Iterable[BundleView], named: _Names) -> str:
    rows = []
    for bundle in bundles:
        uploads = "<br>".join(
            f"{_id(_storage_id(upload.storage_id))} {_state(upload.state)} {_by(upload, named)} {show(upload.reason)}"
            for upload in bundle.uploads
        )
        rows.append(
            [
                _number(bundle.number),
                _state(bundle.state),
                _number(bundle.messages),
                _number(bundle.size),
                "" if bundle.root is None else _id(_hex(bundle.root)),
                f"<td class=text>{uploads}",
            ]
        )
    return _section(
        "Bundles and uploads", _table(["#number", "state", "#messages", "#bytes", "root", "uploads"], rows[::-1])
    )


def _by(upload: UploadView, named: _Names) -> str:
    if upload.own:
        return "own"
    return "" if upload.by is None else f"by {named(upload.by)}"


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
    paid = status.payments
    lines = [f"{show_count(paid.headers, 'header')} paid for {show_count(paid.bundles, 'bundle')}"]
    if paid.twice:
        lines.append(f"<span class=bad>{show_count(paid.twice, 'bundle')} paid more than once</span>")
    if paid.own_messages:
        lines.append(f"own: {paid.own_winston // paid.own_messages} winston a message")
    table = _table(["gateway", "state", "#failures", "since", "after"], rows)
    return _section("Gateways", f"{table}<p>{'; '.join(lines)}</p>")


def _reports(reports: Iterable[ReportView], named: _Names) -> str:
    rows = [
        [
            _number(report.number),
            _state(report.state),
            _id(_storage_id(report.storage_id)),
            f"<td class=text>{len(report.signers)}: {', '.join(named(s) for s in report.signers)}",
            "" if report.transaction is None else _id(_hex(report.transaction)),
            _number(None if report.transaction is None else report.gas_used),
        ]
        for report in reports
    ]
    return _section(
        "Reports", _table(["#number", "state", "storage id", "attested by", "transaction", "#gas"], rows[::-1])
    )


def _balances(status: Status, around: Surroundings) -> str:
    rows = []
    wallet = status.wallet
    if wallet is not None:
        each = wallet.base + 64 * wallet.step
        left = wallet.balance // max(1, each)
        said = f"<td class='text{' warn' if left < FEW else ''}'>{show_count(left, 'upload')} of 16 MiB"
        rows.append(
            ["wallet", f"<td class=n>{wallet.balance / 10**12:.6f} AR", _id(_storage_id(wallet.wallet_address)), said]
        )
    for purpose, unit in (("gas", "POL"), ("query", "LSAN")):
        held = around.balances.get(purpose)
        if held is not None:
            said = "" if held else "<td class='text bad'>empty"
            rows.append([f"{purpose} key", f"<td class=n>{held / 10**18:,.4f} {unit}", "", said])
    return _section("Balances", _table(["of", "#holds", "address", "is enough for"], rows))


def _brokers(status: Status) -> str:
    rows = [
        [
            _id(_hex(broker.address)),
            _number(broker.served),
            f"<td class='n{' warn' if broker.missed else ''}'>{broker.missed:,}",
            f"<td class=text>{_pairs(broker.invalid)}",
        ]
        for broker in status.brokers
    ]
    return _section("Brokers", _table(["broker", "#bytes served", "#bytes missed", "refused records"], rows))


def _refused(status: Status) -> str:
    return _section("Refused records", _pairs(status.invalid_rejected) or _none())


def _evidence(status: Status, named: _Names) -> str:
    rows = [
        [named(item.signer), show(item.instance), _number(item.round), show(item.kind), _clock(item.noticed_ms)]
        for item in status.evidence[:10]
    ]
    title = f"Evidence of double votes: {status.evidence_count}"
    return _section(title, _table(["signer", "instance", "#round", "kind", "noticed"], rows))


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
    return _section("Warnings and alarms", _table(["time", "level", "event", "fields"], rows))


# --- pieces ---------------------------------------------------------------------------------------------


def _document(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<noscript><meta http-equiv=refresh content={NO_PROGRAM_S}></noscript>"
        f"<title>{title}</title><style>{STYLE}</style><body>{body}<script>{SCRIPT}</script></html>"
    )


def _live(name: str, body: str) -> str:
    """A part that is replaced when it changes."""
    return f"<div id={name} data-live>{body}</div>"


def _group(title: str, sections: Sequence[str]) -> str:
    return f"<h2>{show(title)}</h2><div class=group>{''.join(sections)}</div>"


def _section(title: str, body: str) -> str:
    return f"<section><h3>{show(title)}</h3>{body}</section>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """``heads`` that begin with # are numbers; a cell may bring its own <td>."""
    if not rows:
        return _none()
    head = "".join(f"<th class=n>{term(h[1:])}" if h.startswith("#") else f"<th>{term(h)}" for h in heads)
    body = "".join("<tr>" + "".join(c if c.startswith("<td") else f"<td>{c}" for c in row) for row in rows)
    return f"<div class=scroll><table><tr>{head}{body}</table></div>"


def _none() -> str:
    return "<p class=dim>none</p>"


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {show(name)}" for name, count in counts.items())


def _state(word: str) -> str:
    return state(word, "good" if word in _GOOD else "bad" if word in _BAD else "warn")


def _number(value: int | None) -> str:
    return f"<td class=n>{'' if value is None else format(value, ',')}"


def _text(text: str) -> str:
    return f"<td class=text>{show(text)}"


def _id(text: str) -> str:
    """Whole, and cut by the style: a click takes all of it."""
    return f"<code class=id>{text}</code>"


def _hex(data: bytes) -> str:
    return f"0x{data.hex()}"


def _storage_id(storage_id: bytes) -> str:
    return base64.urlsafe_b64encode(storage_id).decode().rstrip("=")


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
