"""How Redis is reached: by TCP, TLS, a Unix socket, or through Sentinels; what Celery, Flower and ``check`` are told.

Celery takes an address, and what does not fit into one beside it: certificates, and the name of what Sentinels watch.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kombu.connection import Connection
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from validator.protocol.errors import ConfigError
from validator.settings import Settings, read_password_file, with_password

SOCKET_S = 30
CONNECT_S = 5


@dataclass(frozen=True, slots=True)
class RedisLink:
    """``url``: with the password in it, never shown. ``tls``: None without. ``options``: of kombu's transport."""

    url: str
    tls: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def make_redis_link(settings: Settings) -> RedisLink:
    """The link that settings describe.

    Raises:
        ConfigError: a file cannot be read, a password is given twice, or Sentinels have no name to ask for.
    """
    urls = settings.redis_url.split(";")
    scheme = urls[0].partition(":")[0]
    options: dict[str, Any] = {"socket_timeout": SOCKET_S, "socket_connect_timeout": CONNECT_S}
    if scheme == "sentinel":
        if not settings.redis_sentinel_name:
            variable = "LOGSTORE_REDIS_SENTINEL_NAME"
            raise ConfigError(f"{variable}: not set; what do the Sentinels call the Redis they watch?", field=variable)
        options |= {
            "master_name": settings.redis_sentinel_name,
            "sentinel_kwargs": {"socket_timeout": CONNECT_S, "socket_connect_timeout": CONNECT_S},
        }
    if settings.redis_password_file is not None:
        password = read_password_file(settings.redis_password_file, "LOGSTORE_REDIS_PASSWORD_FILE")
        urls = [with_password(url, password, "LOGSTORE_REDIS_URL", "LOGSTORE_REDIS_PASSWORD_FILE") for url in urls]
    return RedisLink(";".join(urls), _tls(settings) if scheme == "rediss" else None, options)


class RedisAway(Exception):
    """Redis does not answer, or not as it should."""


def count_messages(link: RedisLink, queues: Sequence[str] = ("collect", "round", "bundle", "report")) -> dict[str, int]:
    """How many messages wait in each queue. Raises RedisAway."""
    options = {**link.options, "socket_timeout": CONNECT_S}
    try:
        with Connection(link.url, ssl=link.tls, transport_options=options) as connection:  # type: ignore[no-untyped-call]
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_S)
            client = connection.default_channel.client
            return {queue: int(client.llen(queue)) for queue in queues}
    except (KombuError, RedisError, OSError, ValueError) as error:
        raise RedisAway(" ".join(str(error).split()) or type(error).__name__) from error


def _tls(settings: Settings) -> dict[str, Any]:
    """Redis' certificate is always checked: against the machine's authorities, or the file that is named."""
    found: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    files = {"ssl_ca_certs": settings.redis_ca_file, "ssl_certfile": settings.redis_cert_file}
    for name, path in files.items():
        if path is None:
            continue
        if not path.is_file():
            variable = "LOGSTORE_REDIS_CA_FILE" if name == "ssl_ca_certs" else "LOGSTORE_REDIS_CERT_FILE"
            raise ConfigError(f"{variable}: cannot read {path}", field=variable)
        found[name] = str(path)
    if "ssl_certfile" in found:
        found["ssl_keyfile"] = found["ssl_certfile"]
    return found
