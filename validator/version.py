"""What this copy of the program is, for people and for reports of what went wrong.

    logstore-validator 0.1.0
    commit    912f4c7e0d5b…    of the build or the checkout, with -dirty where files differ from it; or "not known"
    protocol  2                versions that a network's parameters may name
    bundle    2                versions of a bundle's file that are written and read

Needs neither Git nor settings.
"""

from __future__ import annotations

from validator import __version__
from validator.commit import find_commit
from validator.protocol.parameters import PROTOCOL_VERSIONS

UNKNOWN = "not known"


def describe_version(program: str) -> str:
    """The lines above."""
    from validator.protocol.codec.manifest_rules import CODEC_VERSION  # late: it brings curves and codecs

    lines = (
        ("commit", find_commit() or UNKNOWN),
        ("protocol", " ".join(map(str, PROTOCOL_VERSIONS))),
        ("bundle", str(CODEC_VERSION)),
    )
    return "\n".join([f"{program} {__version__}", *(f"{name:<8}  {text}" for name, text in lines)])
