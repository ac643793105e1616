"""The Log Store for those who read it: bundles as files and tables, and a verdict on every one of them.

    cli.py           the command ``logstore``: words in, exit status out
    commands/        one module per group of commands: options, a call, what is shown
    connection.py    whose network, which nodes and gateways
    network_file.py  the network's file, at a path or an address
    store.py         one network as its readers see it: ``connect``
    reports.py       what the contract holds: which bundles there are, and which lie in a span of time
    bundles.py       files: downloaded, verified, kept
    cache.py         the folder they are kept in: its bound, and several programs at once
    verification.py  what a file, or a bundle's file with the contract's word, proves; and what it does not
    stored_message.py    one message with its proof: the file, and what it proves
    stored_range.py      all messages of a span with their proofs: the file, and what it proves
    proofs.py            proofs to hand on: ``store.prove``
    proving.py, range_proving.py, rows.py    made from bundles' files
    verdicts.py          whatever a reader holds, verified: ``store.verify``
    answers.py           a query's answer by brokers: ``store.query``; as it streams, resumed at another broker
    following.py, asynchronous.py    messages as they come; the same for programs with an event loop
    answer_check.py      what must hold of it, message by message and set by set
    columns.py           an answer that nobody verifies, as Arrow columns
    answer_proof.py, answer_export.py, brokers.py    what is proven of it; its forms; whom to ask
    keys.py              whose key signs
    paying.py            receipts, within a budget
    money.py             tokens, what reading and storing are paid from, and streams
    publishing.py, chains.py, handing_over.py    messages signed, in chains that survive a restart, to several brokers
    auditing.py          one broker's answer against what a second one holds
    selection.py         the files that hold the messages of a span of time
    query.py, merging.py, export.py    SQL over them, and the messages in one order for other programs
    errors.py            all that is raised on purpose, and what to do about it
    times.py, output.py, csv_text.py, files.py

Trust: none is needed in a gateway, since files are checked against what was signed, and little in a node of the chain,
since several are compared. Everything hangs from network.toml, which names the contracts; the contract holds the root
of every bundle that a quorum signed. Foreign files are read in a sandbox (``validator.net.sandbox``).

It needs ``validator.protocol`` and ``validator.net``, nothing else of the validator: no tasks, no database, no web3.
Imports are late: the command's help, and a question that needs no file, wait for no library that they do not use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from logstore import errors

if TYPE_CHECKING:
    from logstore.asynchronous import AsyncNetwork
    from logstore.keys import Key
    from logstore.store import LogStore

__all__ = ["connect", "connect_async", "errors"]


def connect(
    network_file: str | Path | None = None,
    *,
    rpc: Sequence[str] = (),
    gateways: Sequence[str] = (),
    cache: Path | None = None,
    key: Key | None = None,
) -> LogStore:
    """A network as its readers see it; what is left out comes from the environment or the file, as for the command.

    The file may lie at an https address; where none is named anywhere, a development network that runs on this machine
    is taken. ``key``: who signs what is published, paid and asked: a file, 0x and hex digits, or an object with
    ``address`` and ``sign``; see ``logstore.keys``.

    Raises:
        Usage: no network file, or one that does not parse.
        Unreachable, Fault: the file's address does not answer, or with something else.
    """
    from logstore.connection import find_sources
    from logstore.store import LogStore

    return LogStore(find_sources(network_file, rpc, gateways, cache), key)


def connect_async(
    network_file: str | Path | None = None,
    *,
    rpc: Sequence[str] = (),
    gateways: Sequence[str] = (),
    cache: Path | None = None,
    key: Key | None = None,
) -> AsyncNetwork:
    """As ``connect``, for programs with an event loop: ``async with logstore.connect_async() as network``."""
    from logstore.asynchronous import AsyncNetwork

    return AsyncNetwork(lambda: connect(network_file, rpc=rpc, gateways=gateways, cache=cache, key=key))
