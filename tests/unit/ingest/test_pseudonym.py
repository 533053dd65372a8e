"""Pseudonyms: stable, keyed, one per person and namespace."""

import hashlib
import hmac

import pyarrow as pa
import pytest

from include.ingest.pseudonym import mask_emails, pseudonym, pseudonyms


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("EMPORIUM_SECRET_PSEUDONYM_KEY", "a key for tests")


def test_it_is_the_hmac_of_namespace_and_normalised_value():
    expected = hmac.new(b"a key for tests", b"email:ann@example.org", hashlib.sha256).hexdigest()[:32]
    assert pseudonym("email", " Ann@Example.org ") == expected


def test_another_namespace_or_key_is_another_pseudonym(monkeypatch):
    first = pseudonym("email", "17850")
    assert pseudonym("online_retail", "17850") != first
    monkeypatch.setenv("EMPORIUM_SECRET_PSEUDONYM_KEY", "another key")
    assert pseudonym("email", "17850") != first


def test_a_column_keeps_its_nulls_and_its_order():
    values = pa.chunked_array([["b@x.org", None, " "], ["a@x.org", "B@X.org"]])
    one = pseudonym("email", "b@x.org")
    assert pseudonyms("email", values).to_pylist() == [one, None, None, pseudonym("email", "a@x.org"), one]


def test_addresses_in_free_text_are_masked():
    values = pa.array(["call ann.lee+x@mail.example.org now", None, "size @ 5", '{"e":"a@b.de"}'])
    assert mask_emails(values).to_pylist() == ["call ***@*** now", None, "size @ 5", '{"e":"***@***"}']
