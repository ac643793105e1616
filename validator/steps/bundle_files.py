"""Files of bundles: written from what is held, and written again where one is gone or altered."""

from __future__ import annotations

import hashlib
from pathlib import Path

from validator.log import get_logger
from validator.ports.stored import StoredBundle
from validator.protocol.codec.manifest import (
    decode_manifest,
)
from validator.protocol.errors import TransientError
from validator.steps.context import Context

log = get_logger(__name__)


def require_file(context: Context, bundle: StoredBundle) -> Path:
    """The file of a sealed bundle, whole; one that is gone or altered is written again.

    Raises:
        TransientError: the disk does not let us look or write, or a set is not here now.
    """
    path = Path(bundle.path)
    try:
        with path.open("rb") as held:
            if hashlib.file_digest(held, "sha256").digest() == bundle.sha256:
                return path
            reason = "altered"
    except FileNotFoundError:
        reason = "gone"
    except OSError as error:
        raise TransientError(f"{path}: cannot read: {error.strerror}") from error
    log.error("bundle.file_damaged", bundle=bundle.number, reason=reason)
    file = context.writer.write(path, decode_manifest(bundle.manifest))
    if file.sha256 != bundle.sha256:  # another version of the library; roots and votes cover messages, never the file
        context.store.bundles.save_file(bundle.number, file.size, file.sha256)
    return path
