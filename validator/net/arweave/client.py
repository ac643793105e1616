"""arweave-python-client as second opinion: what its transaction would sign must be what ours signs.

The client computes signed bytes and addresses correctly, but its networking must not be used: no timeouts,
rejections that look like success, prices signed unread. So it is held offline: the anchor and the reward are
handed in, the data is empty, root and size are ours, and it sees the public key only. Its module
``transaction_uploader`` is never imported: it resets the process's SIGPIPE handler.

The import takes half a second and happens at the first upload.
"""

from __future__ import annotations

from typing import Any

from validator.protocol.codec.arweave import Transaction
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.errors import InvariantError


def compute_client_signature_data(tx: Transaction, public_jwk: dict[str, str]) -> bytes:
    """The bytes that arweave-python-client would sign for ``tx``: 48 bytes, from its own deep hash.

    Raises:
        InvariantError: the client sees another owner than ``tx`` names.
    """
    import arweave

    class OfflineWallet(arweave.Wallet):  # type: ignore[misc]
        """Answers the anchor it was given instead of asking a gateway."""

        def get_last_transaction_id(self) -> str:
            return encode_base64url(tx.last_tx)

    wallet = OfflineWallet.from_data(dict(public_jwk))  # the client writes into the dictionary
    if wallet.address != encode_base64url(tx.address):
        raise InvariantError("the client reads another address from our key")
    theirs: Any = arweave.Transaction(wallet, data=b"")
    theirs.get_reward = lambda *_, **__: str(tx.reward)
    theirs.target = encode_base64url(tx.target)
    theirs.quantity = str(tx.quantity)
    theirs.data_size = tx.data_size
    theirs.data_root = encode_base64url(tx.data_root).encode()
    for name, value in tx.tag_texts:
        theirs.add_tag(name, value)
    return bytes(theirs.get_signature_data())
