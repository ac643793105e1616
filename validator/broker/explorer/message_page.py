"""The page of a message: the browser's verdict, its fields, and its proof as a path from signature to contract."""

from __future__ import annotations

import json
from dataclasses import dataclass

from validator.broker.explorer.pages import fields_of
from validator.broker.explorer.pieces import (
    address,
    ago,
    card,
    count,
    hex_of,
    link,
    part_address,
    short_id,
    size,
    stream_name,
    utc,
    whole_id,
)
from validator.broker.explorer.reading import Head, MessageView
from validator.look import show
from validator.protocol.codec.arweave_text import encode_base64url, encode_storage_id
from validator.protocol.codec.publisher_text import format_publisher
from validator.protocol.codec.statement import encode_quorum
from validator.protocol.codec.stored_message import encode_stored
from validator.protocol.model import Address, ContentType, EncryptionType, InstanceKind, Message
from validator.protocol.proof import MessageProof
from validator.protocol.quorum import quorum

SHOWN = 20_000
"""Characters of a content; all of it is in what the browser checks."""
NOT_CHECKED = "Not checked by your browser"


def message_page(view: MessageView, head: Head, report_manager: Address, rpc_url: str) -> str:
    m = view.message
    top = (
        f"<p class=crumbs><a href='./'>Streams</a> / <a href='{part_address(view.part)}'>{stream_name(m.stream_id)}</a>"
        f" / partition {m.partition}</p><h1>Message</h1>"
        f"<p class=lead>{utc(m.timestamp_ms)} · {ago(m.timestamp_ms, head.now_ms)}</p>"
    )
    body = f"<div class=two><div>{_content(m)}{_fields(view, head)}</div><div>{_path(view)}{_words()}</div></div>"
    return f"{top}{_verdict(view)}{body}{_evidence(view, report_manager, rpc_url)}"


def _verdict(view: MessageView) -> str:
    """As it stands before a program has run, and where none may."""
    said = "Programs of this page check signature, path and certificate; here none has run."
    if view.trouble:
        said += f" This broker cannot reach the bundles now: {show(view.trouble)}."
    return (
        "<section class='card verdict' id=verdict data-state=none role=status><span class=mark aria-hidden=true></span>"
        f"<div><p class=title data-title>{NOT_CHECKED}</p><p data-said>{said}</p></div></section>"
    )


def _content(m: Message) -> str:
    kind = "encrypted" if m.encryption_type is not EncryptionType.NONE else m.content_type.name.lower()
    kind = "JSON" if kind == "json" else kind
    aside = f"<span class=label>{kind}, {size(len(m.content))}</span>"
    return card("Content", f"<pre data-field=content>{content_text(m)}</pre>", aside)


def content_text(m: Message) -> str:
    """As HTML: text where it is text, else hex; JSON with line breaks where that changes nothing but white space."""
    if m.encryption_type is EncryptionType.NONE:
        try:
            text = m.content.decode()
        except UnicodeDecodeError:
            pass
        else:
            lines = (_indented(text) if m.content_type is ContentType.JSON else text)[: SHOWN + 1].split("\n")
            return "\n".join(show(line, SHOWN) for line in lines)
    return show(m.content[:SHOWN].hex(), SHOWN)


def _indented(text: str) -> str:
    if len(text) > SHOWN:
        return text
    try:
        value = json.loads(text)
        compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return text
    return json.dumps(value, ensure_ascii=False, indent=2) if compact == text else text


def _fields(view: MessageView, head: Head) -> str:
    m = view.message
    previous = "none" if m.prev is None else f"{m.prev.timestamp_ms}, {m.prev.sequence_number}"
    pairs = [
        ("Stream", f"<bdi data-field=stream>{show(m.stream_id, 300)}</bdi>"),
        ("Partition", f"<span data-field=partition>{m.partition}</span>"),
        (
            "Time",
            f"<time data-of=message>{utc(m.timestamp_ms)}</time>"
            f"<br><span class=dim>{ago(m.timestamp_ms, head.now_ms)}</span>",
        ),
        (
            "Unix ms, number",
            f"<span data-field=timestamp>{m.timestamp_ms}</span>, <span data-field=sequence>{m.sequence_number}</span>",
        ),
        ("Publisher", whole_id(format_publisher(m.publisher_id), "publisher")),
        ("Chain", f"<bdi data-field=chain>{show(m.msg_chain_id, 300)}</bdi>"),
        ("After", previous),
        (
            "Signature",
            f"{m.signature_type.name.replace('_', ' ').lower()}<br>{whole_id(hex_of(m.signature), 'signature')}",
        ),
        ("Leaf", whole_id(hex_of(view.leaf))),
    ]
    if view.arrived_ms is not None:
        pairs.append(
            ("Arrived here", f"{ago(view.arrived_ms, head.now_ms)} <span class=dim>by this broker's clock</span>")
        )
    return card("What was signed", fields_of(pairs))


# --- the path


@dataclass(frozen=True, slots=True)
class Step:
    """``name``: by which the program finds it; ``said``: what stands there until the browser has looked."""

    name: str
    title: str
    remark: str
    said: str
    hops: int = 0


def _path(view: MessageView) -> str:
    steps = [
        Step("signature", "Signature", "by the publisher", "over stream, time, publisher, chain and content"),
        Step("message", "Message leaf", "hash of its fields", f"<code>{hex_of(view.leaf)}</code>"),
    ]
    if view.stored is None:
        steps.append(Step("entry", "Not certified yet", "", "No bundle that is verified here holds this message."))
    else:
        steps += _steps_above(view, view.stored.proof)
    items = "".join(
        f"<li data-step={step.name} data-state=none><span class=mark aria-hidden=true></span><div><h3>{step.title}"
        f"<small>{step.remark}</small></h3>{_hops(step.hops)}<p data-said>{step.said}</p></div>"
        for step in steps
    )
    keep = "" if view.stored is None else f"<a href='{_file_of(view)}' download='message.proof'>Keep as a file</a>"
    return card("Proof", f"<ol class=path>{items}</ol>", keep)


def _file_of(view: MessageView) -> str:
    """Where ``/v1`` gives the same proof, for ``logstore verify`` and for contracts."""
    part, m = view.part, view.message
    path = f"../v1/proofs/{hex_of(view.leaf)}"
    return address(path, stream=part[0], partition=part[1], timestamp=m.timestamp_ms)


def _hops(number: int) -> str:
    """One square for each hash beside the path."""
    if not number:
        return ""
    squares = "<i></i>" * min(number, 64)
    return f"<div class=hops role=img aria-label='{count(number, 'hash', 'hashes')} up'>{squares}</div>"


def _steps_above(view: MessageView, proof: MessageProof) -> list[Step]:
    assert view.bundle is not None
    assert view.certified is not None
    assert view.config is not None
    assert proof.bundle is not None
    bundle, instance = view.bundle, proof.window.instance
    window = f"late set of bundle {instance.number:,}"
    if instance.kind is InstanceKind.WINDOW:
        window = f"from {utc(instance.number)[:19]}"
    signers = len(view.certified.certificate.signatures)
    members = len(view.config.committee)
    number = link("bundle", f"#{bundle.number:,}", number=bundle.number)
    return [
        Step(
            "entry",
            "Entry",
            "of the stream partition in its window",
            f"message {proof.entry.index + 1:,} of {proof.entry.count:,}",
            len(proof.entry.path),
        ),
        Step(
            "window",
            "Window",
            window,
            f"entry {proof.window.index + 1:,} of {proof.window.entries:,}",
            len(proof.window.path),
        ),
        Step(
            "certificate",
            "Certificate",
            f"round {view.certified.certificate.round}",
            f"{signers} of {members} members; {quorum(members)} decide",
        ),
        Step(
            "bundle",
            "Bundle root",
            f"of bundle {number}",
            f"<code>{hex_of(bundle.root)}</code>",
            len(proof.bundle.path),
        ),
        Step(
            "contract",
            "Contract",
            f"report in block {bundle.block_number:,}, Arweave {short_id(encode_storage_id(bundle.storage_id))}",
            "ReportManager holds this root, by this broker's word",
        ),
    ]


def _words() -> str:
    return card(
        "",
        "<details><summary>What a green mark rests on</summary><p>Your browser recomputes everything from the message's"
        " bytes: whose signature it is, each hash on the path, and every vote in the certificate. What it cannot know"
        " by itself is said beside the mark. The program that checks comes from this broker, like the page: to rely on"
        " no broker's word, ask with <code>logstore prove</code> and <code>logstore verify</code>.</p></details>",
    )


def _evidence(view: MessageView, report_manager: Address, rpc_url: str) -> str:
    """What the browser checks. No < stands in it, so nothing ends it early."""
    known = {
        "canonical": encode_base64url(view.canonical),
        "leaf": view.leaf.hex(),
        "stored": None if view.stored is None else encode_base64url(encode_stored(view.stored)),
        "certificate": None if view.certified is None else encode_base64url(encode_quorum(view.certified.certificate)),
        "config": encode_base64url(view.preimage),
        "reportManager": hex_of(report_manager),
        "rpc": rpc_url or None,
    }
    if view.stored is not None:
        del known["canonical"]
    text = json.dumps(known, ensure_ascii=True).replace("<", "\\u003c")
    return f"<script type=application/json id=evidence>{text}</script>"
