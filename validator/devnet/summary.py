"""The end of a run as a table and as data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from validator.devnet.display import clean
from validator.devnet.plan import Options
from validator.quantities import show_count

FIELDS: tuple[tuple[str, str], ...] = (
    ("validators, brokers", "how many took part"),
    ("network", "what carried messages: real, Streamr's own nodes; or simulated, and why"),
    (
        "windows_agreed",
        "of the --windows windows, how many ended with a valid certificate; closing windows not counted",
    ),
    ("rounds_total", "sum over these windows of deciding round + 1"),
    ("rounds_max", "the most rounds that one of them took"),
    ("messages_published", "distinct valid messages signed by publishers; brokers' receipts and heartbeats"),
    ("messages_unique_valid", "of these, distinct messages that reached a live broker, by the brokers' delivery logs"),
    ("messages_archived", "of these, distinct messages found in bundles on the gateway"),
    (
        "messages_lost",
        "of those published, how many reached no broker, by their logs: nobody but the publisher can know of them",
    ),
    (
        "messages_missing",
        "of those that reached a live broker and belong into a window, how many are in no bundle; heartbeats go on "
        "after the last window and belong into none",
    ),
    ("messages_late", "archived messages that entered by a bundle's late set"),
    ("messages_archived_twice", "messages found more than once"),
    (
        "signature_types",
        "{name: count}: archived messages by how their publishers signed them, of each of Streamr's five ways; in a "
        "run of some hundred messages none may be missing",
    ),
    ("invalid_archived", "archived records that no publisher signed"),
    ("invalid_rejected", "{validator: {reason: count}}: distinct records that each validator refused"),
    ("forged_delivered", "{kind: count}: distinct forged records that reached a live broker"),
    (
        "bundles",
        "[{number, arweave_id, paid, messages, bytes, bytes_per_message, root, uploader}], the closing one included; "
        "paid: how often a transaction with its data was paid for",
    ),
    ("reports", "[{id, tx, gas_used, signers, status}]; id: the bundle's number, signers: how many signed"),
    ("receipts", "{published, archived, charged_bytes, captured}; captured in base units of the token"),
    (
        "sdk",
        "{stream, published, resend: {last, from, range}, rss_mb}, only on the real network: what Streamr's unmodified "
        "SDK has published, how many messages it read back and verified from the first broker, and its most resident "
        "memory",
    ),
    (
        "killed",
        "{validator, signal, at_window, windows_away, back_at_window}, only with --kill-one; windows count from 0, "
        "windows_away counts the cut-offs it was away for, back_at_window is the first that began after its return",
    ),
    (
        "chaos",
        "[{kind, whom, what, at_window, seconds, recovered_after_s}], only with --chaos: what was done to whom for how "
        "long, and how long after its end all was well; null where it never was",
    ),
    (
        "lying",
        "{broker, kind, consumer: {field, error}, brokers: {broker: {lie: count}}}, only with --lying-broker: as what "
        "a consumer that asked it has refused its answer, and at what the other brokers caught it",
    ),
    (
        "claims",
        "{claim: {checked, failed}}: how often the independent check examined each of its claims; 0 means that the run "
        "had nothing of the kind",
    ),
    ("unknowable", "what the check cannot know, one line each"),
    ("verified", "whether every claim of the independent check holds"),
    ("failures", "the claims that do not hold, one line each"),
    ("seconds_setup", "from the first line of the command to the start of the first window"),
    ("seconds", "from there to the end of the run"),
    ("memory_pss_bytes", "largest proportional set size of all processes together, sampled every 5 s"),
    ("memory_by_process", "{name: bytes}: the same of each process with its children at the end, Node's apart"),
)
"""Name and meaning of each field of ``--json``."""
CELL = 66
"""Characters of a table's cell: a transaction's hash whole, as it is pasted."""


def describe_fields() -> str:
    """One line per field, for ``--help``."""
    return "\n".join(f"  {name}: {meaning}" for name, meaning in FIELDS)


def make_summary(
    options: Options,
    figures: Mapping[str, Any],
    *,
    invalid_rejected: Mapping[str, Any],
    killed: Mapping[str, Any] | None,
    seconds_setup: float,
    seconds: float,
    memory_pss_bytes: int,
    network: str,
    sdk: Mapping[str, Any] | None = None,
    lying: Mapping[str, Any] | None = None,
    chaos: Sequence[Mapping[str, Any]] = (),
    memory_by_process: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The figures of the check with what only the conductor knows, in the order of ``FIELDS``."""
    known: dict[str, Any] = {
        **figures,
        "validators": options.validators,
        "brokers": options.brokers,
        "network": network,
        "invalid_rejected": dict(invalid_rejected),
        "verified": figures.get("verified") is True,
        "seconds_setup": round(seconds_setup, 1),
        "seconds": round(seconds, 1),
        "memory_pss_bytes": memory_pss_bytes,
    }
    if sdk is not None:
        known["sdk"] = dict(sdk)
    if lying is not None:
        known["lying"] = dict(lying)
    if chaos:
        known["chaos"] = [dict(case) for case in chaos]
    if "messages_published" in known:
        known["messages_lost"] = known["messages_published"] - known["messages_unique_valid"]
    if memory_by_process is not None:
        known["memory_by_process"] = dict(memory_by_process)
    if killed is not None:
        known["killed"] = dict(killed)
    names = [name for entry, _ in FIELDS for name in entry.split(", ")]
    return {name: known[name] for name in names if name in known} | {
        name: value for name, value in known.items() if name not in names
    }


def add_failures(figures: dict[str, Any], failures: Sequence[str]) -> None:
    """What the run's own checks found counts like what the independent one did."""
    if failures:
        figures["failures"] = [*figures.get("failures", ()), *failures]
        figures["verified"] = False


def render_summary(summary: Mapping[str, Any]) -> str:
    """The plain table at the end."""
    lines = []
    for name in (
        "network",
        "windows_agreed",
        "rounds_total",
        "rounds_max",
        "messages_published",
        "messages_unique_valid",
        "messages_lost",
        "messages_archived",
        "messages_missing",
        "messages_late",
        "messages_archived_twice",
        "invalid_archived",
    ):
        if name in summary:
            lines.append(f"{name:<26}{_cell(summary[name])}")
    for name in ("signature_types", "forged_delivered", "receipts", "killed"):
        if isinstance(summary.get(name), Mapping):
            lines.append(f"{name:<26}{_pairs(summary[name])}")
    lines += _sdk(summary)
    lines += _lying(summary)
    lines += _table("chaos", summary.get("chaos"), ("kind", "whom", "what", "at_window", "recovered_after_s"))
    for validator, counts in _mapping(summary.get("invalid_rejected")).items():
        lines.append(f"{'refused by ' + clean(str(validator), 14):<26}{_pairs(_mapping(counts))}")
    lines += _table(
        "bundle",
        summary.get("bundles"),
        ("number", "messages", "bytes", "bytes_per_message", "paid", "uploader", "arweave_id"),
    )
    lines += _table("report", summary.get("reports"), ("id", "status", "signers", "gas_used", "tx"))
    lines.append(f"{'seconds_setup, seconds':<26}{summary['seconds_setup']}, {summary['seconds']}")
    lines.append(f"{'memory_pss_bytes':<26}{summary['memory_pss_bytes']} ({summary['memory_pss_bytes'] >> 20} MiB)")
    for name, size in sorted(_mapping(summary.get("memory_by_process")).items()):
        lines.append(f"  {clean(str(name)):<34}{size >> 20} MiB")
    lines += _claims(summary)
    for failure in summary.get("failures", ()):
        lines.append(f"  {clean(str(failure), 400)}")
    failed = show_count(len(summary.get("failures", ())), "failure")
    lines.append("verified" if summary["verified"] else f"not verified: {failed}")
    return "\n".join(lines)


def _sdk(summary: Mapping[str, Any]) -> list[str]:
    """What Streamr's SDK did, in a line."""
    sdk = _mapping(summary.get("sdk"))
    if not sdk:
        return []
    read = _pairs(_mapping(sdk["resend"]))
    return [f"{'Streamr SDK':<26}published {sdk['published']}; read back and verified: {read}; {sdk['rss_mb']} MB"]


def _lying(summary: Mapping[str, Any]) -> list[str]:
    """Who lied, and who named it how."""
    lying = _mapping(summary.get("lying"))
    if not lying:
        return []
    lines = [f"{clean(str(lying['broker'])) + ' ' + clean(str(lying['kind'])):<26}a consumer refused "]
    lines[0] += clean(str(_mapping(lying.get("consumer")).get("error", "nothing")), 400)
    for broker, lies in _mapping(lying.get("brokers")).items():
        lines.append(f"{'  caught by ' + clean(str(broker)):<26}{_pairs(_mapping(lies))}")
    return lines


def _claims(summary: Mapping[str, Any]) -> list[str]:
    """Every claim with how often it was checked, and what cannot be known."""
    lines = []
    for claim, counts in _mapping(summary.get("claims")).items():
        failed = f", {counts['failed']} FAILED" if counts["failed"] else ""
        lines.append(f"  {clean(str(claim)):<34}{counts['checked']} checked{failed}")
    if lines:
        lines.insert(0, "claims of the independent check")
    unknowable = summary.get("unknowable", ())
    if unknowable:
        lines.append("what it cannot know")
        lines += [f"  {clean(str(line), 400)}" for line in unknowable]
    return lines


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Raises OSError."""
    path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _table(title: str, rows: Any, columns: tuple[str, ...]) -> list[str]:
    """Rows as aligned columns below a head line."""
    if not isinstance(rows, list) or not rows:
        return []
    cells = [[title if i == 0 else name for i, name in enumerate(columns)]]
    cells += [[clean(_cell(_mapping(row).get(name, "")), CELL) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _pairs(data: Mapping[str, Any]) -> str:
    return ", ".join(f"{clean(str(name))} {clean(_cell(value))}" for name, value in data.items()) or "none"


def _cell(value: Any) -> str:
    """What is not known, or was not, is a dash."""
    return "-" if value is None else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
