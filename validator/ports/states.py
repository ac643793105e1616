"""States of what is on its way, as words of the database, the status page and the logs. Each enum is a ladder."""

from __future__ import annotations

from enum import StrEnum


class WindowState(StrEnum):
    OPEN = "open"
    COLLECTED = "collected"
    """Observed: what we saw is frozen."""
    AGREED = "agreed"
    """Its outcome is certain."""
    HELD = "held"
    """Its messages are here too."""


class BundleState(StrEnum):
    OPEN = "open"
    """Its late set is undecided."""
    SEALED = "sealed"
    VERIFIED = "verified"
    """Read back whole from an upload that is deep enough."""
    FINAL = "final"
    """Its report is in a final block."""


class UploadState(StrEnum):
    """Of our own upload."""

    PREPARED = "prepared"
    """Signed and saved; nothing may have been sent."""
    POSTED = "posted"
    """A gateway has the header; not enough of them have the chunks."""
    SEEDED = "seeded"
    """Enough gateways have taken every chunk."""
    CONFIRMED = "confirmed"
    """In a block, and paid for."""
    VERIFIED = "verified"
    """Deep enough, and read back whole since it is."""
    DROPPED = "dropped"
    """It can no longer be mined; our turn comes again, with another attempt."""


class AnnouncedState(StrEnum):
    """Of an upload that a member announced, our own too."""

    HEARD = "heard"
    SEEDED = "seeded"
    """Sent by us too: header and chunks were taken."""
    UNREADABLE = "unreadable"
    """Its bytes are here, and our reader failed on them: neither good nor bad."""
    VERIFIED = "verified"
    """Read back whole; once more when it is deep enough."""
    REFUSED = "refused"
    """Its bytes were read and are wrong, with the reason."""


class ReportState(StrEnum):
    DRAFTED = "drafted"
    ATTESTED = "attested"
    SUBMITTED = "submitted"
    FINAL = "final"
    REVERTED = "reverted"
    """Our transaction was mined and did nothing; the report is sent anew."""
