"""Values that would stop or spoil a load: each is refused by its column's rule, and never becomes another value."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.ingest.replay import times
from include.ingest.types import parse

POISON = {
    "integer": [
        "NaN", "Infinity", "-inf", "1" * 400, "2147483648", "-2147483649", "1.0", "0x10", "1e5", "٣", "", " 1", "1\n",
        "1_000",
    ],
    "bigint": ["NaN", "9" * 400, "9223372036854775808", "1e5", "--1"],
    "numeric(18,4)": [
        "NaN", "nan", "Infinity", "-inf", "9" * 400, "0." + "9" * 400, "1e400", "1e5", "100000000000000",
        "99999999999999.99999", ".", "-", "1,5", "٣",
    ],
    "timestamptz": [
        "0000-00-00 00:00:00", "0000-01-01T00:00:00Z", "0001-01-01", "9999-12-31T23:59:59Z", "10000-01-01",
        "9999-12-31T23:59:59-12:00", "2025-02-30T00:00:00Z", "2025-01-01T25:00:00Z", "2025-01-01T00:00:00+99:99",
        "soon",        "1735689600",
    ],
    "date": ["0000-00-00", "0000-01-01", "9999-12-31", "2025-02-30", "2025-1-1", "20250101", "infinity"],
    "boolean": ["maybe", "2", "truefalse", "NaN"],
}  # fmt: skip


@pytest.mark.parametrize("kind", POISON)
def test_a_poisoned_value_is_refused_beside_good_ones(kind):
    good = {"date": "2025-03-02", "timestamptz": "2025-03-02T11:00:00Z", "boolean": "true"}.get(kind, "7")
    values = [one for value in POISON[kind] for one in (value, good)]
    typed, parses = parse(pa.array(values, pa.string()), kind)
    assert dict(zip(values[::2], parses[::2].tolist(), strict=True)) == dict.fromkeys(POISON[kind], False)
    assert typed[::2].isna().all()
    assert parses[1::2].all()
    assert typed[1::2].nunique() == 1


@given(st.integers(0, 9999), st.integers(1, 12), st.integers(1, 28), st.sampled_from(["", "T23:59:59Z", " 00:00:00"]))
@settings(deadline=None)
def test_a_date_is_read_as_it_is_or_refused(year, month, day, rest):
    text = f"{year:04}-{month:02}-{day:02}"
    typed, parses = parse(pa.array([text + rest]), "timestamptz" if rest else "date")
    if parses[0]:
        assert str(typed[0])[:10] == text
    else:
        assert not 1678 <= year <= 2261


@pytest.mark.parametrize("text", ["0000-00-00 00:00:00", "0000-01-01", "9999-12-31 23:59:59", "2262-04-12"])
def test_a_cursor_out_of_range_is_no_time_rather_than_a_wrong_one(text):
    assert np.isnat(times(pa.array([text])))[0]


def test_a_nul_is_no_text():
    typed, parses = parse(pa.array(["a\0", "a", None]), "text")
    assert parses.tolist() == [False, True, True]
    assert typed.isna().tolist() == [True, False, True]
