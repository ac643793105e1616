"""Operator settings: environment variables with the prefix LOGSTORE_, or a .env file. Parsed once, in wiring.

They say where this validator's parts are and what this machine may use. None of them can change a signed byte:
what is equal on all validators is in network.toml (validator.protocol.parameters). Secrets are given as files or as
``SecretStr``; a value in a ``*_FILE`` variable is a path whose content is read once.

The rule: settings are judged whole, in every process, at its start, in one line. What cannot be meant is refused there
with the variable's name and a remedy, all faults together, and never shows a value that may hold a secret: a name that
nobody reads, a value still in quotes, a URL that does not parse, a network with host bits. An empty value is none.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from validator.protocol.errors import ConfigError

PREFIX = "LOGSTORE_"
ENV_FILE = ".env"
ENV_ENCODING = "utf-8-sig"
"""UTF-8, with or without the mark that some editors put first."""
OTHER_NAMES = frozenset(
    f"LOGSTORE_{name}"
    for name in (
        "STARTED_MS",
        "SETUP_PICKED",
        "BEGUN_ANEW",
        "PACKAGES_READY",
        "REDIS_SERVER_BIN",
        "ANVIL_BIN",
        "NPM_BIN",
        "NODE_BIN",
        "STREAMR_PACKAGES",
        "SOLC_JS",
        "CACHE_DIR",
        "CACHE_MIB",
        "STATE_DIR",
        "KEY_FILE",
        "KEY",
    )
)
"""Names with our prefix that are no settings: for set-up, tests, the process itself, or the consumer's command."""
OTHER_ROLES = f"{PREFIX}BROKER_"
"""What the settings of a broker begin with, which may stand in the same file."""
S = TypeVar("S", bound=BaseSettings)
ENCODE = "write special characters of user and password encoded, such as @ as %40 and # as %23"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
DEFAULT_FLOOR_BYTES = 5 << 30
DEFAULT_FLOOR_PERCENT = 10
_SIZE = re.compile(r"([0-9]{1,20})\s*([A-Z]*)", re.IGNORECASE | re.ASCII)


def _split_words(value: Any) -> Any:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _require_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for word in value:
        try:
            ip_network(word)
        except ValueError as error:
            raise ValueError(f"{word!r} is no network ({error}); write one such as 10.0.0.0/8") from error
    return value


def _require_floor(value: str) -> str:
    floor_bytes(value, 1)
    return value


def _read_level(value: Any) -> Any:
    word = value.upper() if isinstance(value, str) else value
    if word not in LOG_LEVELS:
        raise ValueError(f"is none of {', '.join(LOG_LEVELS)}")
    return word


Words = Annotated[tuple[str, ...], BeforeValidator(_split_words), NoDecode]
"""A comma-separated list."""
Networks = Annotated[Words, AfterValidator(_require_networks)]
Floor = Annotated[str, AfterValidator(_require_floor)]
"""See ``floor_bytes``."""
LogLevel = Annotated[str, BeforeValidator(_read_level)]


class Settings(BaseSettings):
    """Everything an operator sets. Each field says its unit, and what goes wrong if it is wrong."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding=ENV_ENCODING,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    # what network
    network_file: Path = Field(
        description="network.toml of the network; a wrong one shows as config digests that differ"
    )
    data_dir: Path = Field(default=Path("data"), description="folder for sets, bundles and downloads")

    # where the parts are
    database_url: str = Field(
        default="sqlite:///data/validator.sqlite",
        description="SQLAlchemy URL: sqlite:///… on a local disk, or postgresql+psycopg://… for fleets",
    )
    database_password_file: Path | None = Field(
        default=None, description="file with the password that database_url leaves out"
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Celery broker: redis://, rediss:// (TLS), redis+socket:///path?virtual_host=N, or Sentinels as "
        "sentinel://host:26379;sentinel://host:26379",
    )
    redis_password_file: Path | None = Field(
        default=None, description="file with the password that redis_url leaves out"
    )
    redis_ca_file: Path | None = Field(
        default=None, description="PEM certificates that vouch for Redis with rediss://, instead of the public ones"
    )
    redis_cert_file: Path | None = Field(
        default=None, description="PEM certificate and key that this validator shows to Redis"
    )
    redis_sentinel_name: str = Field(default="", description="what Sentinels call the Redis that they watch")
    rpc_urls: Words = Field(description="EVM nodes, comma-separated; three of different operators advised")
    gateway_urls: Words = Field(description="Arweave gateways, comma-separated; two or more advised")
    segments_url: str = Field(
        default="", description="fsspec URL for sets shared by several machines; empty: data_dir/sets"
    )

    # keys: each a keystore (web3 secret storage), the address of a remote signer (https://signer:9000/0x…), or the
    # key itself in hex, for development networks; and the Arweave JWK. Whoever speaks to peers signs with the voting
    # key; the others are needed by one queue each: gas by `report`, query by `collect`, the wallet by `bundle`
    voting_key: SecretStr | None = Field(default=None, description="signs statements and reports; the node's address")
    voting_key_file: Path | None = Field(
        default=None, description="file with the voting key: everything that speaks to peers needs it"
    )
    gas_key: SecretStr | None = Field(default=None, description="pays for transactions; any funded account")
    gas_key_file: Path | None = Field(default=None, description="file with the gas key; worker `report` needs it")
    query_key: SecretStr | None = Field(
        default=None, description="logs in at brokers; holds a QueryManager balance only"
    )
    query_key_file: Path | None = Field(default=None, description="file with the query key; worker `collect` needs it")
    key_password_file: Path | None = Field(
        default=None, description="file with the password of all keystores; empty: it is asked for at the terminal"
    )
    signer_ca_file: Path | None = Field(
        default=None, description="PEM certificates that vouch for remote signers, instead of the public ones"
    )
    signer_cert_file: Path | None = Field(
        default=None, description="PEM certificate and key that this validator shows to remote signers"
    )
    database_id_file: Path | None = Field(
        default=None,
        description="names the one database that may be used with the voting key; empty: beside the key's file",
    )
    wallet: SecretStr | None = Field(default=None, description="Arweave JWK that pays for uploads, as JSON")
    wallet_file: Path | None = Field(default=None, description="file with the Arweave JWK; worker `bundle` needs it")

    # listeners
    peers_host: str = Field(default="0.0.0.0", description="peers reach it here, through a TLS proxy")  # noqa: S104
    peers_port: int = Field(default=7180, ge=0, le=65535)
    operator_host: str = Field(
        default="127.0.0.1", description="status page, metrics, health: never public, they ask for no password"
    )
    operator_port: int = Field(default=7181, ge=0, le=65535)
    peers_fd: int | None = Field(default=None, description="inherited socket, bound, instead of peers_host and port")
    operator_fd: int | None = Field(
        default=None, description="inherited socket, bound, instead of operator_host and port"
    )

    # limits of this machine
    allow_nets: Networks = Field(
        default=(),
        description="private networks that broker and peer URLs, or a TLS proxy of ours, may lie in, e.g. 10.0.0.0/8",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM certificates trusted beside the public ones for broker and peer URLs; for private networks",
    )
    allow_http: bool = Field(default=False, description="accept http:// in metadata; development networks only")
    disk_floor: Floor = Field(
        default="",
        description="free disk below which voting stops: bytes, 5GiB (KiB, MiB, TiB), or 7%; empty: 10 % or 5 GiB",
    )
    tick_s: float = Field(
        default=5.0,
        ge=0.1,
        le=60,
        allow_inf_nan=False,
        description="how often beat looks for rows that are due, in seconds",
    )
    embed_beat: bool = Field(
        default=False, description="beat as a thread of the worker: for installations with exactly one worker"
    )
    max_reward_winston: int = Field(default=10**13, gt=0, description="most winston that one upload may cost")
    max_report_fee_pol: Decimal = Field(
        default=Decimal(10),
        gt=0,
        le=10**6,
        description="most POL that one report's transaction may cost; too low, and reports wait while gas is dear",
    )
    min_tip_gwei: Decimal | None = Field(
        default=None,
        ge=0,
        le=10**6,
        description="least tip per gas in gwei; empty: 30 on Polygon and Amoy, whose nodes drop less, 1 elsewhere",
    )
    log_level: LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_format: str = Field(default="json", pattern="^(json|console)$", description="json lines, or console for people")
    observer: bool = Field(
        default=False,
        description="follow, verify and serve, sign nothing; members answer it only if it is a staked node",
    )

    @field_validator("rpc_urls", "gateway_urls")
    @classmethod
    def _web_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one URL")
        for url in value:
            _require_url(url, "http", "https")
        return value

    @field_validator("redis_url")
    @classmethod
    def _known_transport(cls, value: str) -> str:
        urls = value.split(";")
        for url in urls:
            if len(urls) > 1:
                _require_url(url, "sentinel")
            else:
                _require_url(url, "redis", "rediss", "redis+socket", "sentinel")
        return value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if not value.startswith("sqlite:"):
            _require_url(value, "postgresql", "postgresql+psycopg")
        return value

    @property
    def nets(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(net) for net in self.allow_nets)

    @property
    def sets_url(self) -> str:
        return self.segments_url or str(self.data_dir / "sets")

    @property
    def id_file(self) -> Path:
        """Where the id of the key's database is written: beside the key, or in data_dir where the key has no file."""
        if self.database_id_file is not None:
            return self.database_id_file
        key = self.voting_key_file
        return key.with_name(f"{key.name}.database") if key is not None else self.data_dir / "voting.database"

    @property
    def metrics_dir(self) -> Path:
        """Counters of all processes of this validator on this machine."""
        return self.data_dir / "metrics"

    def key_text(self, name: str) -> str:
        """What is set as the key ``name`` ("voting", "gas", "query"): hex, a keystore, or where a remote signer is.

        Raises:
            ConfigError: missing, given twice, unreadable, or readable by others; never shows the value.
        """
        value: SecretStr | None = getattr(self, f"{name}_key")
        path: Path | None = getattr(self, f"{name}_key_file")
        variable = f"{PREFIX}{name.upper()}_KEY"
        if value is not None and path is not None:
            raise ConfigError(f"{variable}: {variable}_FILE is set too; keep one of them", field=variable)
        if value is not None:
            return value.get_secret_value()
        if path is None:
            raise ConfigError(f"{variable}_FILE: not set; name a file with the key", field=variable)
        return read_secret_file(path, f"{variable}_FILE")

    def key_password(self) -> str | None:
        """The password of keystores: the first line of the file; None where none is set. Raises ConfigError."""
        if self.key_password_file is None:
            return None
        return read_password_file(self.key_password_file, f"{PREFIX}KEY_PASSWORD_FILE")

    def wallet_text(self) -> str | None:
        """The JWK that pays for uploads, as it was given; None where none is.

        Raises:
            ConfigError: given twice, unreadable, or readable by others; never shows the value.
        """
        variable = f"{PREFIX}WALLET"
        if self.wallet is not None and self.wallet_file is not None:
            raise ConfigError(f"{variable}: {variable}_FILE is set too; keep one of them", field=variable)
        if self.wallet is not None:
            return self.wallet.get_secret_value()
        return None if self.wallet_file is None else read_secret_file(self.wallet_file, f"{variable}_FILE")

    def database_link(self) -> str:
        """The database's URL with its password in it; never shown.

        Raises:
            ConfigError: the password's file cannot be read, or the URL has one already.
        """
        if self.database_password_file is None:
            return self.database_url
        variable = f"{PREFIX}DATABASE_PASSWORD_FILE"
        password = read_password_file(self.database_password_file, variable)
        return with_password(self.database_url, password, f"{PREFIX}DATABASE_URL", variable)

    def has_secret(self, name: str) -> bool:
        """Whether the key ``name`` is set here, good or not."""
        return getattr(self, f"{name}_key") is not None or getattr(self, f"{name}_key_file") is not None


def floor_bytes(floor: str, total: int) -> int:
    """LOGSTORE_DISK_FLOOR in bytes: "1000000", "5GiB", "7%", or empty for 10 % of the disk, at most 5 GiB.

    Raises:
        ValueError: anything else.
    """
    text = floor.strip()
    if not text:
        return min(total * DEFAULT_FLOOR_PERCENT // 100, DEFAULT_FLOOR_BYTES)
    percent = text.removesuffix("%").strip()
    if text.endswith("%") and percent.isdecimal() and int(percent) <= 100:
        return total * int(percent) // 100
    size = _SIZE.fullmatch(text)
    if size is None or size[2].upper() not in UNITS:
        raise ValueError(f"{floor!r} is no amount of disk; write bytes, 5GiB, or 7%")
    return int(size[1]) * UNITS[size[2].upper()]


def read_text_file(path: Path, variable: str) -> str:
    """Content of a text file in UTF-8, with or without a byte order mark.

    Raises:
        ConfigError: unreadable, or not UTF-8; names the variable and the path, never the content.
    """
    try:
        return path.read_bytes().decode(ENV_ENCODING)
    except OSError as error:
        raise ConfigError(f"{variable}: cannot read {path}: {error.strerror}", field=variable) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{variable}: {path} is not text in UTF-8 (byte {error.start}); save it as UTF-8", field=variable
        ) from None


def read_secret_file(path: Path, variable: str) -> str:
    """Content of a secret file. Raises ConfigError naming the variable and the remedy."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{variable}: cannot read {path}: {error.strerror}", field=variable) from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{variable}: {path} is readable by others; chmod 600 it", field=variable)
    return read_text_file(path, variable)


def read_password_file(path: Path, variable: str) -> str:
    """The first line of a file that only its owner reads. Raises ConfigError."""
    return read_secret_file(path, variable).split("\n", 1)[0].rstrip("\r")


def with_password(url: str, password: str, variable: str, file_variable: str) -> str:
    """A URL with a password that it did not have. Raises ConfigError where it had one, or has no host."""
    parts = urlsplit(url)
    user, _, place = parts.netloc.rpartition("@")
    if not place or ":" in user:
        reason = "has a password already" if place else "names no host, so it takes no password"
        raise ConfigError(f"{variable}: {reason}; {file_variable} is set too", field=variable)
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}"))


def load_settings(**said: Any) -> Settings:
    """Settings from the environment and .env; ``said``: by a command's own words, which count more.

    Raises:
        ConfigError: one line with every fault: the variable, the reason, a remedy. ``field`` is the first one's.
    """
    given = {name: value for name, value in given_values().items() if not name.startswith(OTHER_ROLES)}
    return load_class(Settings, given, **said)


def load_class(kind: type[S], given: Mapping[str, str], **said: Any) -> S:
    """Settings of any role, judged whole; ``given``: the names and values that are its own. Raises ConfigError."""
    faults = list(_misnamed(kind, given))
    try:
        settings = kind(**said)
    except ValidationError as error:
        faults += [_describe(kind, detail) for detail in error.errors(include_input=False)]
    if faults:
        raise ConfigError("; ".join(faults), field=faults[0].partition(":")[0])
    return settings


def given_values() -> Mapping[str, str]:
    """Everything with our prefix in .env and environment, names in capitals; the environment wins."""
    values: dict[str, str | None] = {}
    file = Path(ENV_FILE)
    if file.is_file():
        read_text_file(file, ENV_FILE)
        values = {**dotenv_values(file, encoding=ENV_ENCODING)}
    values |= os.environ
    return {name.upper(): value for name, value in values.items() if value and name.upper().startswith(PREFIX)}


def _prefix_of(kind: type[BaseSettings]) -> str:
    return str(kind.model_config.get("env_prefix", ""))


def _misnamed(kind: type[BaseSettings], given: Mapping[str, str]) -> Iterator[str]:
    """Faults that the fields cannot see: names that nobody reads, and quotes that a shell would have taken off."""
    known = {f"{_prefix_of(kind)}{field.upper()}" for field in kind.model_fields}
    for name, value in sorted(given.items()):
        if name not in known | OTHER_NAMES:
            near = difflib.get_close_matches(name, known, n=1)
            yield f"{name}: no such setting" + (f"; is {near[0]} meant?" if near else "")
        elif len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            yield f"{name}: its value stands in quotes; take them off"


def _describe(kind: type[BaseSettings], detail: Any) -> str:
    """One fault of one field, without its value."""
    place = str(detail["loc"][0])
    field = kind.model_fields[place]
    text = f"not set; {field.description}" if detail["type"] == "missing" else detail["msg"]
    return f"{_prefix_of(kind)}{place.upper()}: {text.removeprefix('Value error, ')}"


def _require_url(url: str, *schemes: str) -> None:
    """Raises ValueError with what is wrong, without showing the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"its host or port does not parse; {ENCODE}") from None
    if parts.scheme not in schemes:
        raise ValueError(f"must be {' or '.join(f'{scheme}://' for scheme in schemes)} URLs")
    if parts.netloc.count("@") > 1 or any(c.isspace() for c in url):
        raise ValueError(f"does not parse; {ENCODE}")
    if not host and not (parts.path.startswith("/") and parts.scheme not in ("http", "https")):
        raise ValueError("names no host")
