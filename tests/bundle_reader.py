"""Rows of a bundle's file as records, without a recount: what a broker reads of row groups, of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from validator.protocol.codec.bundle_file import read_group
from validator.protocol.codec.bundle_front import footer_bytes, read_tail
from validator.protocol.codec.bundle_groups import group_bytes
from validator.protocol.codec.bundle_recount import RowInstances
from validator.protocol.codec.manifest_rules import check_same_manifest
from validator.protocol.model import InstanceId, Manifest, Record


def read_records(path: Path, manifest: Manifest) -> Iterator[tuple[InstanceId, Record]]:
    """Rows in file order with the instance each belongs to; counts, bytes and roots are not compared here.

    ``manifest`` is the caller's: the file's own must be equal to it, certificates apart.

    Raises:
        MalformedInput: names the column, key, statistic or field that breaks the format.
    """
    data = path.read_bytes()
    tail = data[-8 - footer_bytes(len(data), data[-8:]) :]
    footer, own = read_tail(len(data), tail)
    check_same_manifest(own, manifest)
    sets = RowInstances(manifest)
    for number, group in enumerate(footer.groups):
        start, end = group_bytes(group)
        for late, record in read_group(len(data), tail, footer, number, data[start:end]):
            yield sets.instance_of(late, record.message.timestamp_ms), record
