"""The keys of this process: what the settings name, opened as ``Signer``s (net.signer), once per process.

A keystore's password is read from LOGSTORE_KEY_PASSWORD_FILE; where that is not set and somebody sits at a terminal,
he is asked.
"""

from __future__ import annotations

import getpass
import ssl
import sys
from functools import partial

import certifi

from validator.log import get_logger
from validator.net.signer.source import KeyKind, kind_of, open_signer, read_secret
from validator.protocol.codec.secp256k1 import Signer, SigningKey
from validator.protocol.errors import ConfigError
from validator.protocol.parameters import Network
from validator.settings import Settings

log = get_logger(__name__)

PURPOSES = ("voting", "gas", "query")
PASSWORD_VARIABLE = "LOGSTORE_KEY_PASSWORD_FILE"  # noqa: S105
DEVELOPMENT_CHAINS = frozenset({1337, 31337})
"""Chain ids that development nodes take; no network with money has them."""
HEX_WARNING = "lies in the open; a keystore or a remote signer belongs here (logstore-validator keys import)"


def variable_of(purpose: str) -> str:
    return f"LOGSTORE_{purpose.upper()}_KEY"


def load_signer(settings: Settings, purpose: str) -> Signer:
    """Who signs for ``purpose`` ("voting", "gas").

    Raises:
        ConfigError: missing, unreadable, readable by others, no key, no password or a wrong one; shows neither.
    """
    what = variable_of(purpose)
    ask = partial(ask_password, settings, f"the {purpose} key")
    return open_signer(settings.key_text(purpose), what, ask_password=ask, tls=partial(trust_of_signers, settings))


def load_key(settings: Settings, purpose: str) -> SigningKey:
    """A key that must be here: the query key, whose signature is a password at every broker. Raises ConfigError."""
    text, what = settings.key_text(purpose), variable_of(purpose)
    if kind_of(text) is KeyKind.REMOTE:
        raise ConfigError(f"{what}: this key cannot lie in a remote signer; name hex or a keystore", field=what)
    return SigningKey(read_secret(text, what, ask_password=partial(ask_password, settings, f"the {purpose} key")))


def ask_password(settings: Settings, whose: str) -> str:
    """From the file, or from whoever sits at the terminal. Raises ConfigError."""
    password = settings.key_password()
    if password is not None:
        return password
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{PASSWORD_VARIABLE}: not set; {whose} is a keystore, name a file with its password",
            field=PASSWORD_VARIABLE,
        )
    return getpass.getpass(f"Password of {whose}: ")


def is_development(network: Network) -> bool:
    """Whether keys may lie in the open here: nothing of worth hangs on them."""
    return network.chain_id in DEVELOPMENT_CHAINS


def warn_of_open_keys(settings: Settings, network: Network) -> None:
    """At the start of a process, outside development networks: which keys lie in the open."""
    for purpose in () if is_development(network) else PURPOSES:
        if settings.has_secret(purpose) and kind_of(settings.key_text(purpose)) is KeyKind.HEX:
            log.warning("key.in_the_open", setting=variable_of(purpose), reason=HEX_WARNING)


def trust_of_signers(settings: Settings) -> ssl.SSLContext:
    """TLS towards a remote signer: the operator's own authority instead of the public ones, and who we are."""
    field = "LOGSTORE_SIGNER_CA_FILE"
    try:
        tls = ssl.create_default_context(cafile=settings.signer_ca_file or certifi.where())
        if settings.signer_cert_file is not None:
            field = "LOGSTORE_SIGNER_CERT_FILE"
            tls.load_cert_chain(settings.signer_cert_file, password=_no_password)
    except OSError as error:
        raise ConfigError(f"{field}: {error.strerror or error}", field=field) from error
    return tls


def _no_password() -> str:
    """OpenSSL would ask at the terminal, in every process."""
    raise OSError("the key is under a password; store it without one, chmod 600")
