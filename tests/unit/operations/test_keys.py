"""The five keys of a node: made once, for their owner alone, never written over, never shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.builders import a_key
from validator import cli
from validator.net.arweave.wallet import ArweaveWallet
from validator.net.signer.keystore import make_keystore
from validator.net.signer.source import read_secret
from validator.operations.keys import PURPOSES, import_key, make_keys, write_private
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import ConfigError

KEY = a_key(100)
SECRET = bytes.fromhex(KEY.secret_hex()[2:])
PASSWORD = "ein langes Passwort"


def a_keystore(password: str) -> str:
    return make_keystore(SECRET, password, salt=bytes(32), iv=bytes(16), uuid="a", n=1 << 10)


def a_file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def opened(path: Path, password: str) -> SigningKey:
    return SigningKey(read_secret(path.read_text(), str(path), ask_password=lambda: password))


def test_all_five_keys_are_made_for_their_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["keys", "new", "--folder", "secrets", "--password-file", "secrets/password"]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "secrets"
    assert set(contents(folder)) == {"password", *(f"{purpose}.json" for purpose in PURPOSES)}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    password = (folder / "password").read_text().strip()
    key = opened(folder / "voting.json", password)
    wallet = ArweaveWallet.from_file(folder / "wallet.json")
    for address in (f"0x{key.address.hex()}", encode_storage_id(wallet.address)):
        assert address in said
    assert password not in said
    assert key.secret_hex()[2:] not in said
    assert len({line.split()[1] for line in said.splitlines() if line.split()[0] in PURPOSES}) == 5

    before = contents(folder)
    for words in (["new"], ["new", "gas"]):
        assert cli.main(["keys", *words, "--folder", "secrets", "--password-file", "secrets/password"]) == 2
        assert "nothing is written over" in capsys.readouterr().err
    assert contents(folder) == before

    assert cli.main(["keys", "show", *(f"secrets/{purpose}.json" for purpose in PURPOSES)]) == 0
    shown = capsys.readouterr().out
    assert f"0x{key.address.hex()}" in shown
    assert encode_storage_id(wallet.address) in shown


def test_where_one_is_there_already_none_is_made(tmp_path: Path) -> None:
    a_file(tmp_path, "query.hex", "mine")
    with pytest.raises(ConfigError, match=r"query\.hex is there already"):
        list(make_keys(tmp_path, ["voting", "query"], None))
    assert contents(tmp_path) == {"query.hex": b"mine"}


def test_keys_in_the_open_are_said_to_be_for_development(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "new", "gas", "--in-the-open", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "for development networks" in said.err
    assert f"0x{opened(tmp_path / 'gas.hex', '').address.hex()}" in said.out


@pytest.mark.parametrize(
    ("text", "password"), [(KEY.secret_hex(), ""), (a_keystore("another"), "another")], ids=["hex", "keystore"]
)
def test_a_key_that_one_has_becomes_a_keystore_of_the_node(tmp_path: Path, text: str, password: str) -> None:
    source = a_file(tmp_path, "old", text)
    made = import_key(tmp_path / "secrets", "voting", source, lambda: password, lambda: PASSWORD)
    assert made.address == f"0x{KEY.address.hex()}"
    assert opened(tmp_path / "secrets" / "voting.json", PASSWORD).address == KEY.address
    assert source.read_text() == text


@pytest.mark.parametrize(
    ("purpose", "text", "said"),
    [
        ("gas", a_keystore("another"), "the password is not its own"),
        ("gas", "nonsense", "not 32 bytes of hex"),
        ("gas", f"https://signer:9000/0x{KEY.address.hex()}", "there is no key in it"),
        ("wallet", "{}", "an RSA-4096 JWK belongs here"),
    ],
)
def test_what_is_no_key_leaves_nothing_behind(tmp_path: Path, purpose: str, text: str, said: str) -> None:
    source = a_file(tmp_path, "old", text)
    with pytest.raises(ConfigError, match=said) as caught:
        import_key(tmp_path / "secrets", purpose, source, lambda: "wrong", lambda: PASSWORD)
    assert PASSWORD not in str(caught.value)
    assert not (tmp_path / "secrets").exists()


def test_a_source_that_others_can_read_is_refused(tmp_path: Path) -> None:
    source = a_file(tmp_path, "old", KEY.secret_hex())
    source.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        import_key(tmp_path, "gas", source, str, None)


def test_a_link_that_lies_in_a_keys_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "gas.hex").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is there already"):
        list(make_keys(tmp_path, ["gas"], None))
    with pytest.raises(ConfigError, match="is there already"):
        write_private(tmp_path / "gas.hex", "secret")
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_terminal_and_a_password_file_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["keys", "new", "gas", "--folder", str(tmp_path / "secrets")]) == 2
    assert "use --password-file" in capsys.readouterr().err
    assert not (tmp_path / "secrets").exists()
