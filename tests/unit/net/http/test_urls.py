from __future__ import annotations

import base64
import ipaddress

import pytest

from validator.net.http.urls import ParsedUrl, check_url, is_global_unicast, read_operator_url, unwrap_address
from validator.protocol.errors import MalformedInput

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


def check(url: str, *, allow_http: bool = True) -> ParsedUrl:
    return check_url(url, allow_http=allow_http, allow_nets=[])


def test_an_ordinary_url_is_taken_apart() -> None:
    assert check("https://Validator.Example/base/") == ParsedUrl("https", "validator.example", 443, "/base")
    assert check("https://8.8.8.8:8443") == ParsedUrl("https", "8.8.8.8", 8443, "")
    assert check("https://[2606:4700::1111]:8443/x").authority == "[2606:4700::1111]:8443"
    assert check("https://a.example").authority == "a.example"
    assert check("http://a.example:443").authority == "a.example:443"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "empty"),
        ("https://" + "a" * 60 + "." + "b" * 200, "256"),
        ("ftp://a.example:2121/", "neither https nor http"),
        ("file:///etc/passwd", "neither https nor http"),
        ("//a.example", "neither https nor http"),
        ("https://user@a.example/", "user info"),
        ("https://user:pass@a.example/", "user info"),
        ("https://a.example/?x=1", "query"),
        ("https://a.example/#x", "fragment"),
        ("https://a.example:80/", "port 80"),
        ("https://a.example:22/", "port 22"),
        ("http://a.example/", "port 80"),
        ("https://a.example:0/", "port 0"),
        ("https://a.example:65536/", "port 65536"),
        ("https://a.example:99999999/", "not a number"),
        ("https://a.example:/", "not a number"),
        ("https://a.example:+443/", "not a number"),
        ("https://a.example:４４３/", "character"),
        ("https://a.exa mple/", "character"),
        ("https://a.example\\@b.example/", "character"),
        ("https://a.example/\r\nHost: b", "character"),
        ("https://exämple.org/", "character"),
        ("https:///path", "neither a name nor an address"),
        ("https://a..example/", "neither a name nor an address"),
        ("https://a.example/../x", "dots"),
        ("https://[::1/", "brackets"),
        ("https://[8.8.8.8]/", "brackets"),
        ("https://[::1]x/", "brackets"),
        ("https://2130706433/", "is a number"),
        ("https://0x7f.1/", "is a number"),
        ("https://127.1/", "is a number"),
        ("https://a.0x7f/", "is a number"),
        ("https://0177.0.0.1/", "is a number"),
        ("https://127.0.0.1/", "not a global unicast"),
        ("https://169.254.169.254/", "not a global unicast"),
        ("https://10.1.2.3/", "not a global unicast"),
        ("https://[::1]/", "not a global unicast"),
        ("https://[::]/", "not a global unicast"),
        ("https://[fe80::1]/", "not a global unicast"),
        ("https://[fd00::1]/", "not a global unicast"),
        ("https://[ff02::1]/", "not a global unicast"),
        ("https://[64:ff9b::a9fe:a9fe]/", "not a global unicast"),
        ("https://[::ffff:127.0.0.1]/", "not a global unicast"),
        ("https://[::127.0.0.1]/", "not a global unicast"),
        ("https://[2002:7f00:1::]/", "not a global unicast"),
        ("https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", "not a global unicast"),
    ],
)
def test_a_url_that_breaks_a_rule_is_refused_with_the_rule(url: str, reason: str) -> None:
    with pytest.raises(MalformedInput, match=reason) as caught:
        check(url)
    assert caught.value.field == "url"


def test_a_scoped_address_is_refused_even_in_an_allowed_net() -> None:
    with pytest.raises(MalformedInput, match="global unicast"):
        check_url("https://[fe80::1%25eth0]/", allow_http=False, allow_nets=[ipaddress.ip_network("fe80::/10")])


def test_http_is_for_development_networks_only() -> None:
    with pytest.raises(MalformedInput, match="plain http"):
        check("http://a.example:8080", allow_http=False)
    assert check("http://a.example:8080").scheme == "http"


def test_a_private_address_needs_the_operators_word() -> None:
    assert check_url("http://127.0.0.1:8080", allow_http=True, allow_nets=LOOPBACK).host == "127.0.0.1"
    with pytest.raises(MalformedInput, match=r"10\.0\.0\.1"):
        check_url("http://10.0.0.1:8080", allow_http=True, allow_nets=LOOPBACK)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("64:ff9b::102:304", "1.2.3.4"),
        ("2002:102:304::1", "1.2.3.4"),
        ("2606:4700::1", "2606:4700::1"),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
def test_wrapped_ipv4_addresses_are_unwrapped(text: str, inner: str) -> None:
    assert unwrap_address(ipaddress.ip_address(text)) == ipaddress.ip_address(inner)


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::"])
def test_public_addresses_are_global_in_every_form(text: str) -> None:
    assert is_global_unicast(ipaddress.ip_address(text))


def test_a_url_of_the_operator_is_taken_at_its_word() -> None:
    named = read_operator_url("http://Node.Example:81/v3/key-of-mine/?a=b c")
    assert (named.origin, named.target) == (
        ParsedUrl("http", "node.example", 81, ""),
        "/v3/key-of-mine/?a=b%20c",
    )
    assert read_operator_url("https://[::1]/x%2fy").origin == ParsedUrl("https", "::1", 443, "")
    assert read_operator_url("https://[::1]/x%2fy").target == "/x%2fy"
    assert read_operator_url("http://10.0.0.1").origin.authority == "10.0.0.1"
    assert read_operator_url("https://bücher.example").origin.host == "xn--bcher-kva.example"


def test_credentials_of_the_operator_become_a_header_and_are_known_as_secrets() -> None:
    named = read_operator_url("https://user:p%40ss@node.example/v3/0123456789abcdef?token=t0ken")
    assert named.headers == (("Authorization", "Basic " + base64.b64encode(b"user:p@ss").decode()),)
    assert {"user", "p%40ss", "0123456789abcdef", "token=t0ken"} == set(named.secrets)
    assert read_operator_url("https://node.example/v3").headers == ()


@pytest.mark.parametrize(
    "url",
    ["", "node.example", "ftp://node.example", "https://", "https:///x", "http://a:99999", "http://a:b", "http://[::1"],
)
def test_a_text_of_the_operator_that_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL with a host|does not parse"):
        read_operator_url(url)
