"""RFC 7512 URIs: what they name, and what they must not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.model.identifiers import key_id
from chatelaine.pkcs11.errors import UriRefused
from chatelaine.pkcs11.uri import MAX_URI_CHARS, Pkcs11Uri, key_uri, parse, parse_token

HSM_A = SimpleNamespace(label="hsm-a", serial="0001", manufacturer="SoftHSM project", model="SoftHSM v2")


def text_up_to(limit_bytes: int) -> st.SearchStrategy[str | None]:
    text = st.text(st.characters(codec="utf-8"), max_size=limit_bytes)
    return st.none() | text.filter(lambda value: len(value.encode()) <= limit_bytes)


URIS = st.builds(
    Pkcs11Uri,
    token=text_up_to(32),
    manufacturer=text_up_to(32),
    serial=text_up_to(16),
    model=text_up_to(16),
    object=text_up_to(64),
    id=st.none() | st.binary(max_size=64),
    type=st.none() | st.sampled_from(["public", "private", "cert", "secret-key", "data"]),
)


@given(URIS)
def test_what_is_written_is_read_again(uri: Pkcs11Uri) -> None:
    assert parse(str(uri)) == uri
    assert str(uri).isascii()


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, f"pkcs11:{text}", f"pkcs11:token={text}"):
        try:
            again = parse(candidate)
        except UriRefused:
            continue
        assert parse(str(again)) == again


@pytest.mark.parametrize(
    "text",
    [
        "",
        "token=a",
        "PKCS11:token=a",
        "pkcs11:token",
        "pkcs11:token=a;",
        "pkcs11:token=a;token=b",
        "pkcs11:token=%zz",
        "pkcs11:token=%ff",
        "pkcs11:token=a b",
        "pkcs11:token=a/b",
        "pkcs11:token=a#b",
        f"pkcs11:token={'a' * 33}",
        "pkcs11:type=other",
        "pkcs11:vendor=x",
        "pkcs11:" + "token=" + "a" * MAX_URI_CHARS,
    ],
)
def test_malformed_uris_are_refused(text: str) -> None:
    with pytest.raises(UriRefused):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:token=a?pin-value=1234",
        "pkcs11:token=a?pin-source=file:/pin",
        "pkcs11:token=a;pin-value=1234",
        "pkcs11:pin-source=file:/pin;token=a",
        "pkcs11:token=a?",
    ],
)
def test_uri_that_carries_a_pin_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UriRefused) as caught:
        parse(text)
    assert "1234" not in str(caught.value)
    assert "file:" not in str(caught.value)


@pytest.mark.parametrize("part", ["slot-id=1", "slot-description=x", "slot-manufacturer=x", "library-version=2"])
def test_uri_that_names_a_slot_or_library_is_refused(part: str) -> None:
    with pytest.raises(UriRefused):
        parse(f"pkcs11:token=a;{part}")


def test_uri_that_loads_a_module_is_refused() -> None:
    """A manifest must not choose the code that runs beside the HSM."""
    for query in ("module-path=/tmp/evil.so", "module-name=evil"):
        with pytest.raises(UriRefused):
            parse(f"pkcs11:token=a?{query}")


@pytest.mark.parametrize("text", ["pkcs11:", "pkcs11:object=k", "pkcs11:id=%01;type=private"])
def test_uri_that_any_token_would_fit_is_refused(text: str) -> None:
    parse(text)
    with pytest.raises(UriRefused):
        parse_token(text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("pkcs11:token=hsm-a", True),
        ("pkcs11:token=hsm-a;serial=0001", True),
        ("pkcs11:manufacturer=SoftHSM%20project;model=SoftHSM%20v2", True),
        ("pkcs11:token=hsm-a;serial=0002", False),
        ("pkcs11:token=HSM-A", False),
        ("pkcs11:token=hsm", False),
        ("pkcs11:token=", False),
    ],
)
def test_every_attribute_named_must_be_equal(text: str, fits: bool) -> None:
    assert parse(text).matches(HSM_A) is fits


def test_the_uri_of_a_key_names_token_serial_label_and_identifier() -> None:
    uri = key_uri(HSM_A, "chat/uid/signing/1")
    assert uri == parse(str(uri))
    assert (uri.serial, uri.object, uri.id, uri.type) == (
        "0001",
        "chat/uid/signing/1",
        key_id("chat/uid/signing/1"),
        "private",
    )
