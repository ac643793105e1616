"""Gateways, wallet, and what was paid for."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection, select

from validator.ports.states import AnnouncedState, UploadState
from validator.store import schema
from validator.store.view.status import GatewayView, PaymentsView, WalletView

_MINED = (AnnouncedState.VERIFIED, AnnouncedState.REFUSED, AnnouncedState.UNREADABLE)
"""Only what is in a block is read back, and only then judged."""
_PAID = (UploadState.CONFIRMED, UploadState.VERIFIED)


def load_gateways(connection: Connection) -> tuple[GatewayView, ...]:
    t = schema.gateways
    rows = connection.execute(select(t).order_by(t.c.host))
    return tuple(GatewayView(row.host, row.state, row.failures, row.error, row.changed_ms) for row in rows)


def load_wallet(connection: Connection) -> WalletView | None:
    """The wallet that was looked at last."""
    t = schema.wallets
    row = connection.execute(select(t).order_by(t.c.seen_ms.desc()).limit(1)).one_or_none()
    return None if row is None else WalletView(row.address, row.balance, row.base, row.step, row.seen_ms)


def load_payments(connection: Connection) -> PaymentsView:
    heard, own, bundles = schema.announcements, schema.uploads, schema.bundles
    mined = select(heard.c.number).where(heard.c.state.in_(_MINED))
    headers = Counter(connection.execute(mined).scalars())
    ours = connection.execute(
        select(own.c.reward, bundles.c.messages, bundles.c.size)
        .join(bundles, bundles.c.number == own.c.number)
        .where(own.c.state.in_(_PAID))
    ).all()
    return PaymentsView(
        headers=headers.total(),
        bundles=len(headers),
        twice=sum(count > 1 for count in headers.values()),
        own_winston=sum(row.reward for row in ours),
        own_messages=sum(row.messages for row in ours),
        own_bytes=sum(row.size for row in ours),
    )
