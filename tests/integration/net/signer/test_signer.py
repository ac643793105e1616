"""Who signs, here or in another machine: one port, the same tests, and a server that errs, lies, hangs or hides."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builders import a_key
from tests.fakes.tls import Authority, server_side
from tests.fakes.web3signer import SIGN, StandIn, public_key_of, web3signer
from tests.wallet import Account
from validator.keys import load_signer
from validator.net.chain.transaction import Transaction
from validator.net.http.urls import read_operator_url
from validator.net.signer.keystore import make_keystore
from validator.net.signer.remote import MAX_SIGNATURE_BYTES, RemoteSigner
from validator.net.signer.source import open_signer
from validator.protocol.codec.secp256k1 import CURVE_ORDER, Signer, verify_signature
from validator.protocol.errors import ConfigError, TransientError
from validator.protocol.hashing import keccak256
from validator.settings import Settings

KEY, OTHER = a_key(100), a_key(101)
PAYLOAD = b"\x19\x01" + bytes(64)
SECRET = bytes.fromhex(KEY.secret_hex()[2:])
PASSWORD = "correct horse"


def opened(text: str) -> Signer:
    return open_signer(text, "LOGSTORE_VOTING_KEY", ask_password=lambda: PASSWORD)


@contextmanager
def in_the_open() -> Iterator[Signer]:
    yield opened(KEY.secret_hex())


@contextmanager
def in_a_keystore() -> Iterator[Signer]:
    yield opened(make_keystore(SECRET, PASSWORD, salt=bytes(32), iv=bytes(16), uuid="a", n=1 << 10))


@contextmanager
def in_a_server() -> Iterator[Signer]:
    with web3signer(OTHER, KEY) as server:
        yield opened(server.url(KEY))


@pytest.fixture(params=[in_the_open, in_a_keystore, in_a_server])
def signer(request: pytest.FixtureRequest) -> Iterator[Signer]:
    with request.param() as made:
        yield made


def test_a_signature_is_over_the_hash_of_what_was_given_and_of_the_named_address(signer: Signer) -> None:
    assert signer.address == KEY.address
    for payload in (PAYLOAD, b"\x02\xc0", b"", bytes(100_000)):
        verify_signature(keccak256(payload), signer.sign_payload(payload), KEY.address)
        assert signer.sign_payload(payload) == KEY.sign_payload(payload)


def test_a_transaction_is_signed_as_a_wallet_signs_it(signer: Signer) -> None:
    raw = Transaction(137, 1, 30, 60, 21_000, OTHER.address, 5, b"\x01").sign(signer)
    assert Account.recover_transaction(raw) == Account.from_key(KEY.secret_hex()).address


def test_its_repr_shows_the_address_and_no_secret(signer: Signer) -> None:
    assert KEY.address.hex() in repr(signer)
    assert KEY.secret_hex()[2:] not in repr(signer)


# --- a server ---


@pytest.fixture
def server() -> Iterator[StandIn]:
    with web3signer(OTHER, KEY) as made:
        yield made


def remote(server: StandIn, deadline_s: float = 5.0) -> RemoteSigner:
    url = read_operator_url(f"http://127.0.0.1:{server.port}")
    return RemoteSigner(url, KEY.address, deadline_s=deadline_s)


def test_the_list_of_keys_is_asked_for_once(server: StandIn) -> None:
    signer = remote(server)
    signer.check()
    for _ in range(3):
        signer.sign_payload(PAYLOAD)
    assert [method for method, _ in server.asked] == ["GET", "POST", "POST", "POST"]
    assert server.asked[1][1] == SIGN + public_key_of(KEY)


def test_a_key_may_be_named_with_its_leading_byte_too(server: StandIn) -> None:
    server.name_of = lambda key: "0x04" + public_key_of(key)[2:].upper()
    assert remote(server).sign_payload(PAYLOAD) == KEY.sign_payload(PAYLOAD)
    assert server.asked[1][1].startswith(SIGN + "0x04")


def flip(signature: bytes) -> bytes:
    """The same signature with s in the upper half, as hardware may give it."""
    s = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


@pytest.mark.parametrize("after", [flip, lambda s: s[:64] + bytes([s[64] - 27]), lambda s: flip(s)])
def test_a_signature_is_made_one_that_the_contract_accepts(server: StandIn, after: Callable[[bytes], bytes]) -> None:
    server.after = after
    assert remote(server).sign_payload(PAYLOAD) == KEY.sign_payload(PAYLOAD)


WRONG: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another key's": (lambda _: OTHER.sign_payload(PAYLOAD), "not that of"),
    "over something else": (lambda _: KEY.sign_payload(b"pay the bearer"), "not that of"),
    "over a bare hash": (lambda _: KEY.sign(keccak256(keccak256(PAYLOAD))), "not that of"),
    "too short": (lambda s: s[:64], "no signature of 65 bytes"),
    "v of another chain": (lambda s: s[:64] + b"\x25", "recovery value"),
    "zeros": (lambda _: bytes(65), "no public key"),
    "ones": (lambda _: b"\xff" * 65, "no signature"),
}


@pytest.mark.parametrize(("after", "reason"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_signature_is_never_handed_on(server: StandIn, after: Callable[[bytes], bytes], reason: str) -> None:
    server.after = after
    with pytest.raises(TransientError, match=reason):
        remote(server).sign_payload(PAYLOAD)


ANSWERS = {
    "not now": ((503, b""), "HTTP 503"),
    "not ours": ((401, b"who are you"), "HTTP 401"),
    "a page": ((200, b"<html>"), "no signature of 65 bytes|not JSON"),
    "endless": ((200, b"0" * (1 << 21)), "more than|exceed|bytes"),
    "a redirect": ((302, b""), "redirect|302"),
}


@pytest.mark.parametrize(("answer", "reason"), ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("path", ["publicKeys", "sign"])
def test_a_server_that_refuses_or_errs_leaves_it_unsigned_for_now(
    server: StandIn, answer: tuple[int, bytes], reason: str, path: str
) -> None:
    assert MAX_SIGNATURE_BYTES < 1 << 21
    server.instead = lambda asked: answer if path in asked else None
    signer = remote(server)
    with pytest.raises(TransientError, match=reason) as caught:
        signer.sign_payload(PAYLOAD)
    assert str(server.port) in str(caught.value)
    server.instead = lambda _: None
    assert signer.sign_payload(PAYLOAD) == KEY.sign_payload(PAYLOAD)


def test_a_server_that_hangs_or_is_gone_costs_no_more_than_the_deadline(server: StandIn) -> None:
    server.hang_s = 3.0
    with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
        remote(server, deadline_s=0.2).sign_payload(PAYLOAD)
    gone = RemoteSigner(read_operator_url("http://127.0.0.1:1"), KEY.address)
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:1"):
        gone.check()


def test_a_key_that_the_server_does_not_hold_is_named(server: StandIn) -> None:
    signer = remote(server)
    signer.sign_payload(PAYLOAD)
    server.keys.remove(KEY)
    for _ in range(2):  # by the key's own address, then by the list
        with pytest.raises(TransientError, match=f"does not hold the key of 0x{KEY.address.hex()}"):
            signer.sign_payload(PAYLOAD)
    server.keys.append(KEY)
    assert signer.sign_payload(PAYLOAD)


def test_credentials_of_the_url_go_to_the_server_and_into_no_text(server: StandIn) -> None:
    text = f"http://operator:s3cret-pass@127.0.0.1:{server.port}/tenant-7/0x{KEY.address.hex()}"
    server.instead = lambda path: (403, b"") if path.startswith("/tenant-7/") else None
    signer = opened(text)
    with pytest.raises(TransientError) as caught:
        signer.sign_payload(PAYLOAD)
    assert server.headers[0]["authorization"].startswith("Basic ")
    for shown in (str(caught.value), repr(signer), str(caught.value.__cause__)):
        assert "s3cret" not in shown


def test_tls_is_by_the_operators_authority_and_shows_who_asks(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), tmp_path / "stranger"
    stranger.mkdir()
    mutual = server_side(authority.issue("127.0.0.1"))
    mutual.verify_mode = ssl.CERT_REQUIRED
    mutual.load_verify_locations(authority.ca_file)
    own = authority.issue("validator")
    with web3signer(KEY, tls=mutual) as server:

        def load(**files: Path) -> Signer:
            settings = Settings(
                network_file=tmp_path / "network.toml",
                rpc_urls=("http://127.0.0.1:1",),
                gateway_urls=("http://127.0.0.1:1",),
                voting_key=server.url(KEY, "https"),
                **files,  # type: ignore[arg-type]
            )
            return load_signer(settings, "voting")

        good = load(signer_ca_file=authority.ca_file, signer_cert_file=own)
        assert good.sign_payload(PAYLOAD) == KEY.sign_payload(PAYLOAD)
        for files in (
            {},
            {"signer_ca_file": authority.ca_file},
            {"signer_ca_file": Authority(stranger).ca_file, "signer_cert_file": own},
        ):
            with pytest.raises(TransientError):
                load(**files).sign_payload(PAYLOAD)
        for name in ("signer_ca_file", "signer_cert_file"):
            with pytest.raises(ConfigError, match=f"^LOGSTORE_{name.upper()}"):
                load(**{"signer_ca_file": authority.ca_file, name: tmp_path / "nowhere"})
