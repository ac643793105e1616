"""Who asks, and whether it is answered: login tokens at ``/v1``, Basic logins at the old paths, balances, debts.

A login that was checked is remembered by its header, so that a page costs no signature. Tokens end; a Basic login can
be replayed for ever, by every broker that has seen it, and serves the old paths only.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

from validator.broker.chain_view import ChainView
from validator.broker.refusal import Refused, busy
from validator.ports.broker_state import Accounts
from validator.protocol.codec.login import LEEWAY_MS, Login, check_login, read_login
from validator.protocol.codec.payload import digest_of_payload
from validator.protocol.codec.secp256k1 import recover_address
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput, TransientError
from validator.protocol.model import Address, SignatureType

REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Terms:
    """``balance``: whether a consumer needs one in QueryManager, and so a login. ``streamr``: whether Streamr's own
    interface, which knows no login, is answered."""

    balance: bool = True
    streamr: bool = True


class Gate:
    """For one event loop; what may ask the chain is to be called on a thread."""

    def __init__(
        self,
        broker: Address,
        context: SigningContext,
        chain: ChainView,
        accounts: Accounts,
        terms: Terms,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._broker = broker
        self._context = context
        self._chain = chain
        self._accounts = accounts
        self._now_ms = now_ms
        self._tokens: dict[str, Login] = {}
        self._basic: dict[tuple[str, bool], Address] = {}
        self.terms = terms

    def consumer_of_token(self, header: str | None) -> Address | None:
        """Who asks at ``/v1``; None where nobody needs to say. Raises Refused (401)."""
        if header is None:
            if self.terms.balance:
                raise _unknown("a login token is needed: Authorization: LogStore …")
            return None
        login = self._tokens.get(header)
        if login is not None and login.expiry_ms + LEEWAY_MS >= self._now_ms():
            return login.consumer
        try:
            login = read_login(header)
            check_login(login, self._context, self._broker, self._now_ms())
        except MalformedInput as error:
            raise _unknown(error.reason) from error
        _remember(self._tokens, header, login)
        return login.consumer

    def consumer_of_basic(self, header: str | None, *, hex_password: bool) -> Address:
        """User = lower-case address, password = EIP-191 signature over it, as the old brokers have it.

        Raises:
            Refused: 401 without a Basic header, 403 for another signer, 500 for what is no signature in that form: the
                old brokers hand it to a library that throws, and clients tell dialects by it.
        """
        if header is None or not header.startswith("Basic "):
            raise Refused(401, "Authentication required", headers={"www-authenticate": "Basic"})
        known = self._basic.get((header, hex_password))
        if known is not None:
            return known
        try:
            user, _, password = base64.b64decode(header[6:], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise Refused(403, "Authentication failed") from None
        if not password:
            raise Refused(403, "Authentication failed")
        digest = digest_of_payload(SignatureType.ECDSA_SECP256K1_EVM, user.encode())
        try:
            signer = recover_address(digest, _password(password, hex_password=hex_password))
        except (binascii.Error, ValueError, MalformedInput):
            raise Refused(500, "signature missing v and recoveryParam") from None
        if "0x" + signer.hex() != user:
            raise Refused(403, "Authentication failed")
        _remember(self._basic, (header, hex_password), signer)
        return signer

    def check_balance(self, consumer: Address | None, *, status: int = 402) -> None:
        """May ask the chain. Raises Refused."""
        if consumer is None or not self.terms.balance:
            return
        try:
            if not self._chain.has_balance(consumer):
                raise Refused(status, "Not enough balance")
        except TransientError as error:
            raise busy("the balance cannot be read now") from error

    def check_debt(self, consumer: Address | None) -> None:
        """May ask a database. Raises Refused (402) where a consumer has read more than it has signed for."""
        if consumer is not None and not self._accounts.may_read(consumer):
            raise Refused(402, "unpaid bytes have reached the limit: send a receipt to /v1/receipts", field="receipt")


def _unknown(reason: str) -> Refused:
    return Refused(401, f"authorization: {reason}", field="authorization", headers={"www-authenticate": "LogStore"})


def _password(text: str, *, hex_password: bool) -> bytes:
    """Raises ValueError (binascii.Error is one)."""
    if not hex_password:
        return base64.b64decode(text, validate=True)
    if not text.startswith("0x"):
        raise ValueError("no hex")
    return bytes.fromhex(text[2:])


def _remember(known: dict, key: object, value: object) -> None:  # type: ignore[type-arg]
    while len(known) >= REMEMBERED:
        del known[next(iter(known))]
    known[key] = value
