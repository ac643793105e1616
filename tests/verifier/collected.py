"""What was collected from the validators themselves: the return of one that was killed.

It can only make the check fail: votes must carry valid signatures.
"""

from __future__ import annotations

from typing import Any

from tests.verifier.bundles import Archived, signing_context
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from tests.verifier.folder import Run
from validator.protocol.codec.statement import decode_statement, verify_statement
from validator.protocol.model import InstanceKind, StatementKind


def check_killed(run: Run, collected: dict[str, Any], bundles: list[Archived], findings: Findings) -> None:
    """The killed validator was away for two windows at least and voted in a window that began after its return.

    ``back_at_window`` is the start of the first window that began after its return, Unix ms; ``certificates`` are the
    instances of which it holds one in the end: all.
    """
    killed = collected.get("killed")
    if run.killed is None:
        if killed:
            findings.fail(Claim.KILLED, str(killed), "was killed although nobody should have been")
        return
    name = run.killed
    if not findings.expect(isinstance(killed, dict), Claim.KILLED, name, "nothing was collected about it"):
        return
    assert isinstance(killed, dict)
    findings.expect(
        killed["validator"] == run.killed, Claim.KILLED, name, f"another one was killed: {killed['validator']}"
    )
    away = int(killed["windows_away"])
    findings.expect(away >= 2, Claim.KILLED, name, f"was away for {away} windows, not at least 2")
    address = next(member.address for member in run.validators if member.name == run.killed)
    digests = {b.manifest.header.config_digest for b in bundles}
    voted = []
    for text in collected.get("statements", {}).get(run.killed, ()):
        statement = decode_statement(bytes.fromhex(text.removeprefix("0x")))
        verify_statement(statement, signing_context(run))
        own = statement.signer == address and statement.config_digest in digests
        vote = statement.kind in (StatementKind.PREVOTE, StatementKind.PRECOMMIT)
        if own and vote and statement.instance.kind is InstanceKind.WINDOW:
            voted.append(statement.instance.number)
    back = int(killed["back_at_window"])
    shown = back > run.network.genesis_ms and any(start >= back for start in voted)
    findings.expect(shown, Claim.KILLED, name, f"shows no vote in a window from {back} on")
    held = set(killed["certificates"])
    agreed = {str(c.outcome.instance) for b in bundles for c in (*b.manifest.windows, b.manifest.late)}
    for instance in sorted(agreed - held):
        findings.fail(Claim.KILLED, name, f"has no certificate of {instance}")
