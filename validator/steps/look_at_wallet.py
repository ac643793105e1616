"""What the next bundle will cost, and whether our wallet can pay: seen when its windows are agreed, before sealing.

What is sealed follows from what was agreed and from nothing else: a bundle that one member held back for its price
would be another bundle than the others'. So a price or an empty wallet changes neither size nor time of sealing; the
sizes at which a bundle closes are the network's parameters, for all alike. It changes who pays: a header that the
balance does not cover, with all that are under way, is not signed (``BundleStorage.prepare``), and after a stage it is
the next one's turn. What is left to do is to tell the operator early.
"""

from __future__ import annotations

from validator.log import get_logger
from validator.ports.queue import Ending, StepResult, Task
from validator.ports.states import BundleState
from validator.ports.stored import StoredBundle
from validator.protocol.codec.manifest import decode_manifest
from validator.protocol.model import InstanceId, InstanceKind
from validator.steps.agreed import require_outcome
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle

log = get_logger(__name__)

FEW_UPLOADS = 10
"""With no more left than this an operator is warned at each bundle."""


def look_at_wallet(context: Context, number: int) -> StepResult:
    """Estimate what a bundle costs, keep balance and prices for who looks, and warn. Safe to run twice."""
    bundle = require_bundle(context.store, number)
    wallet = context.storage.wallet_address()
    if wallet is None or bundle.state in (BundleState.VERIFIED, BundleState.FINAL):
        context.store.due.done(Task.WALLET_LOOK, str(number))
        return StepResult(Ending.SKIPPED, "no wallet" if wallet is None else "uploaded already")
    tariff, balance = context.storage.fetch_tariff(), context.storage.fetch_balance()
    context.store.weave.save_wallet(wallet, balance, tariff)
    size = estimate_size(context, bundle)
    price = max(1, tariff.compute_price(size))
    left = balance // price - context.store.bundles.count_open_uploads()
    fields = {"bundle": number, "bytes": size, "price": price, "balance": balance}
    if left < 1:
        log.warning("wallet.cannot_pay", **fields, remedy="fund the wallet; until then our turns to upload pass")
    elif left <= FEW_UPLOADS:
        log.warning("wallet.runs_low", **fields, uploads_left=left)
    context.store.due.done(Task.WALLET_LOOK, str(number))
    return StepResult(Ending.ESTIMATED, f"{size} bytes for {price} winston, {max(0, left)} such uploads left")


def estimate_size(context: Context, bundle: StoredBundle) -> int:
    """Bytes of a bundle's file: canonical bytes of its windows, made smaller as much as the last bundle's were."""
    windows = context.store.windows.load_windows(bundle.first_ms, bundle.end_ms)
    starts = [InstanceId(InstanceKind.WINDOW, stored.window.start_ms) for stored in windows]
    agreed = sum(require_outcome(context, instance).canonical_bytes for instance in starts)
    last = context.store.bundles.load_bundle(bundle.number - 1)
    if last is None or last.root is None:
        return agreed
    manifest = decode_manifest(last.manifest)
    before = sum(certified.outcome.canonical_bytes for certified in (*manifest.windows, manifest.late))
    return agreed * last.size // before if before else last.size
