"""Pseudonyms: what stands in for a person everywhere behind the extraction."""

from __future__ import annotations

import hashlib
import hmac

import pyarrow as pa
import pyarrow.compute as pc

from include.secrets import secret

EMAIL = r"[^\s,;:<>\"'()=]+@[^\s,;:<>\"'()=]+\.[A-Za-z]{2,}"
MASK = "***@***"


def pseudonym(namespace: str, value: str) -> str:
    """First 32 hex digits of HMAC-SHA256 over ``namespace:value``, the value trimmed and in lower case.

    The same person is one pseudonym in every source that uses the namespace; without the key
    (``secret("pseudonym_key")``) nobody can compute it from a list of addresses.
    """
    return _digest(secret("pseudonym_key").encode(), namespace, value)


def pseudonyms(namespace: str, values: pa.ChunkedArray | pa.Array) -> pa.Array:
    """``pseudonym`` of each string; null and blank stay null."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    encoded = values.dictionary_encode()
    key = secret("pseudonym_key").encode()
    replaced = [
        _digest(key, namespace, value) if value and value.strip() else None for value in encoded.dictionary.to_pylist()
    ]
    return pa.array(replaced, pa.string()).take(encoded.indices)


def mask_emails(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Strings with everything that looks like an e-mail address masked: it may stand in a column where none belongs."""
    if not pc.any(pc.match_substring(values, "@")).as_py():
        return values
    return pc.replace_substring_regex(values, EMAIL, MASK)


def _digest(key: bytes, namespace: str, value: str) -> str:
    return hmac.digest(key, f"{namespace}:{value.strip().lower()}".encode(), hashlib.sha256).hex()[:32]
