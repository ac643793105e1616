"""What the status page's words mean: under the pointer where they stand, and all of them in the legend."""

from __future__ import annotations

from collections.abc import Mapping

from validator.look import show

COLOURS: Mapping[str, str] = {
    "green": "done: agreed, verified, final",
    "amber": "moving, or degraded and still moving",
    "red": "somebody must look",
}
STATES: Mapping[str, str] = {
    "open": "a window that is not collected yet; a bundle whose late set is not decided; a round that goes on",
    "collected": "a window whose messages were asked for at the brokers",
    "observed": "what we saw of a window is frozen and signed",
    "decided": "a late set whose outcome is certain",
    "agreed": "a window whose outcome is certain; a certificate says so",
    "held": "an agreed window whose messages are here too",
    "sealed": "a bundle whose file is written",
    "prepared": "an upload that is signed and saved; nothing was sent yet",
    "posted": "an upload whose header a gateway has taken",
    "heard": "an upload that its sender has announced",
    "seeded": "an upload whose every chunk was taken as well",
    "confirmed": "an upload in a block, and paid for",
    "unreadable": "an upload whose bytes our reader failed on: neither good nor bad",
    "dropped": "an upload that can no longer be mined; our turn comes again",
    "refused": "an upload whose bytes are wrong; the reason stands beside it",
    "verified": "read back whole, and every root and signature checked",
    "drafted": "a report that follows from a verified bundle; nobody's word but ours",
    "attested": "a report that a quorum has signed",
    "submitted": "a report that we have sent to the contract",
    "reverted": "a report whose transaction did nothing; it is sent anew",
    "final": "a report, and its bundle, in a final block",
}
HINTS: Mapping[str, str] = {
    "certificate": "a quorum of precommits of one round for one outcome: it decides",
    "epoch": "run of windows with one committee and one parameter set",
    "head": "the newest block that the head watcher saw",
    "window": "half-open span of time; the unit that is agreed on. Shown by its start, Unix ms",
    "state": "how far it is; each state is in the legend below",
    "round": "one attempt to decide, led by one member; the next begins where it fails",
    "step": "where the round is: a proposal, then two votes, prevote and precommit",
    "leader": "whose turn it is to propose in a round",
    "said": "statements of the round that are here: of how many members, by kind; once decided, the certificate",
    "waits for": "what must come before it goes on",
    "member": "a validator of the committee, by the address of its voting key",
    "answers": "at the last handshake, which is made every quarter of a minute",
    "observations": "what each one saw of the shown windows",
    "proposals": "signed by it as a round's leader: what the outcome should be",
    "prevotes": "its first votes: the proposal is sound, or none is",
    "precommits": "its second votes, after a quorum of prevotes; a quorum of them is a certificate",
    "evidence": "two different signed statements where only one is allowed",
    "bundle": "consecutive windows and one late set: one Parquet file, one Arweave transaction",
    "number": "of the bundle; its report has the same",
    "messages": "records of the bundle, the late ones too",
    "bytes": "size of the bundle's file",
    "root": "the one hash above all leaves of the bundle's tree",
    "uploads": "each announced or own transaction of the bundle's file",
    "gateway": "a server of Arweave's that is asked and sent to",
    "failures": "in a row; after some the gateway is left alone for a while",
    "storage id": "the Arweave transaction, base64url as gateways take it",
    "attested by": "who has signed the report with this storage id",
    "transaction": "that the contract took the report in, whoever sent it; 0x, as the chain has it",
    "gas": "used by that transaction, whoever paid for it",
    "is enough for": "at today's price",
    "broker": "that messages are asked of, by its address",
    "bytes served": "signed bytes that it gave in our newest observations",
    "bytes missed": "what most brokers served and this one did not",
    "refused records": "that no publisher signed, or that broke a rule, by reason",
    "signer": "who signed both statements",
    "instance": "what the statements are about: a window, or a bundle's late set",
    "kind": "of the statements: proposal, prevote, precommit or observation",
}


def term(word: str, hint: str = "") -> str:
    """A word with its meaning under the pointer."""
    text = hint or HINTS.get(word, "")
    return f'<abbr title="{show(text)}">{show(word)}</abbr>' if text else show(word)


def state(word: str, colour: str) -> str:
    """A state in its colour, with its meaning under the pointer."""
    text = STATES.get(word, "")
    title = f' title="{show(text)}"' if text else ""
    return f"<span class={colour}{title}>{show(word)}</span>"


def legend() -> str:
    """Every word with its meaning, for who has no pointer."""
    words = {**COLOURS, **STATES, **HINTS}
    items = "".join(f"<dt>{show(word)}<dd>{show(text)}" for word, text in words.items())
    return f"<details><summary>What the words and colours mean</summary><dl>{items}</dl></details>"
