"""``logstore-validator keys``: make, show and take in the five keys of a node. Files are for their owner alone, and
nothing is ever written over.

The four Ethereum keys become keystores, all under one password; the Arweave wallet is a JWK, which has no such form.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from validator import keys
from validator.net.arweave.wallet import ArweaveWallet, generate_wallet
from validator.net.signer.keystore import make_keystore
from validator.net.signer.source import KeyKind, kind_of, read_secret, shown_address
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import ConfigError
from validator.settings import Settings, read_secret_file

WALLET = "wallet"
PURPOSES = {
    "voting": "the node's address: signs statements and reports",
    "gas": "pays for transactions in POL",
    "query": "logs in at brokers",
    "stake": "cold: holds the stake and delegates it to the node; no process needs it",
    WALLET: "Arweave: pays for uploads in AR",
}
FEWEST_CHARACTERS = 10
"""Of a password that somebody types."""

AskPassword = Callable[[], str]


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A key as it may be shown: ``where`` it was found, ``address`` as its chain writes it, and what kind it is."""

    purpose: str
    where: str
    address: str
    kind: str


def make_keys(folder: Path, purposes: Sequence[str], password: AskPassword | None) -> Iterator[ShownKey]:
    """New keys in ``folder``, told one by one as they are written. ``password`` None: in the open, for development.

    Raises:
        ConfigError: a file is there already; then nothing is made.
    """
    paths = {purpose: path_of(folder, purpose, is_open=password is None) for purpose in purposes}
    _require_absent(paths.values())
    asked = password() if password is not None and set(purposes) - {WALLET} else None
    for purpose, path in paths.items():
        if purpose == WALLET:
            write_private(path, json.dumps(generate_wallet()) + "\n")
            yield _show_wallet(path)
        else:
            yield _write_key(purpose, path, SigningKey(secrets.token_bytes(32)), asked)


def import_key(folder: Path, purpose: str, source: Path, old: AskPassword, new: AskPassword | None) -> ShownKey:
    """The key of a file (hex, a keystore, or a JWK) as one of this node's. ``new`` None: in the open.

    Raises:
        ConfigError: the file holds no such key, its password is wrong, or the new one's place is taken.
    """
    path = path_of(folder, purpose, is_open=new is None)
    _require_absent([path])
    text = read_secret_file(source, str(source))
    if purpose == WALLET:
        ArweaveWallet.from_text(text.encode(), str(source))
        write_private(path, text)
        return _show_wallet(path)
    if kind_of(text) is KeyKind.REMOTE:
        raise ConfigError(f"{source}: names a remote signer; there is no key in it", field=str(source))
    key = SigningKey(read_secret(text, str(source), ask_password=old))
    return _write_key(purpose, path, key, new() if new is not None else None)


def show_files(files: Sequence[Path]) -> Iterator[ShownKey]:
    """What key files show without a password. Raises ConfigError."""
    for path in files:
        text = read_secret_file(path, str(path))
        if '"kty"' in text:
            yield _show_wallet(path)
            continue
        yield ShownKey(path.stem, str(path), _shown(text, str(path)), kind_of(text).value)


def show_settings(settings: Settings) -> Iterator[ShownKey]:
    """The keys that the settings name; what is not set is left out. Raises ConfigError."""
    for purpose in keys.PURPOSES:
        if settings.has_secret(purpose):
            variable = keys.variable_of(purpose)
            text = settings.key_text(purpose)
            yield ShownKey(purpose, variable, _shown(text, variable), kind_of(text).value)
    wallet = settings.wallet_text()
    if wallet is not None:
        address = ArweaveWallet.from_text(wallet.encode(), "LOGSTORE_WALLET").address
        yield ShownKey(WALLET, "LOGSTORE_WALLET", encode_storage_id(address), "JWK")


def path_of(folder: Path, purpose: str, *, is_open: bool = False) -> Path:
    """Where a key of this purpose is kept."""
    return folder / (f"{purpose}.hex" if is_open and purpose != WALLET else f"{purpose}.json")


def ensure_password_file(path: Path) -> bool:
    """Make a random password where the file is not there; whether it was made. Raises ConfigError."""
    if path.exists():
        return False
    write_private(path, secrets.token_urlsafe(24) + "\n")
    return True


def write_private(path: Path, text: str) -> None:
    """A new file for its owner alone, on the disk when this returns, whole or not at all. Raises ConfigError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, stat.S_IRUSR | stat.S_IWUSR)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", field=str(path)) from error


def _write_key(purpose: str, path: Path, key: SigningKey, password: str | None) -> ShownKey:
    if password is None:
        write_private(path, key.secret_hex() + "\n")
    else:
        salt, iv = secrets.token_bytes(32), secrets.token_bytes(16)
        secret = bytes.fromhex(key.secret_hex().removeprefix("0x"))
        write_private(path, make_keystore(secret, password, salt=salt, iv=iv, uuid=str(uuid.uuid4())))
    kind = KeyKind.HEX if password is None else KeyKind.KEYSTORE
    return ShownKey(purpose, str(path), f"0x{key.address.hex()}", kind.value)


def _show_wallet(path: Path) -> ShownKey:
    address = ArweaveWallet.from_file(path).address
    return ShownKey(WALLET, str(path), encode_storage_id(address), "JWK")


def _shown(text: str, what: str) -> str:
    address = shown_address(text, what)
    return "?" if address is None else f"0x{address.hex()}"


def _require_absent(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists() or path.is_symlink():
            raise _taken(path)


def _taken(path: Path) -> ConfigError:
    return ConfigError(f"{path} is there already; nothing is written over: name another folder", field=str(path))
