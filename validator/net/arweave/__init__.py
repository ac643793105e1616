"""Arweave: where bundles are kept for ever.

Owns: the wallet that pays (``wallet``), requests to a gateway (``gateway``), reading data back from one (``reading``),
and the ``BundleStorage`` port over all configured gateways (``storage``). Formats and proofs are pure and live in
``codec.arweave``.

Flow: prepare (price, balance, anchor; cut, sign, verify our own work) → the caller saves → post the saved header →
seed every chunk to every gateway → ask for the status until enough confirmations → read back and check. Everything
after the saving may be repeated at any time and pays nothing again.

Decided against (docs/decisions): the networking of arweave-python-client, which stays in as a second opinion on signed
bytes (``client``, 0015); data inside POST /tx (0016); anchors by the wallet's last transaction (0017); random salt
(0018); data items through a bundling service (0027).
"""
