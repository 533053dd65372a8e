"""What parses, and what Postgres would refuse."""

import pandas as pd
import pyarrow as pa
import pytest

from include.ingest.types import in_utc, parse


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("integer", ["0", "-7", "2147483647"], ["1.0", "2147483648", "1e3", "x", " 1", "٣"]),
        ("bigint", ["999999999999999999"], ["1000000000000000000", "1,000"]),
        ("numeric(18,4)", ["0", "-1.5", ".5", "5.", "12345678901234.5678"], ["1,5", "NaN", "inf", "123456789012345"]),
        (
            "timestamptz",
            ["2018-05-01", "2018-05-01 10:11:12", "2018-05-01T10:11:12.123456Z", "2018-05-01T10:11+02:00"],
            ["2018-02-30", "01/05/2018", "2018-05-01T25:00:00", "NaN", "0000-00-00 00:00:00", "now"],
        ),
        ("date", ["2024-02-29"], ["2023-02-29", "2024-02-29 00:00"]),
        ("boolean", ["true", "F", "0", "yes"], ["2", "maybe"]),
    ],
)
def test_values_parse_or_are_told_apart(kind, good, bad):
    typed, parses = parse(pa.array([*good, None, *bad]), kind)
    assert parses.tolist() == [True] * (len(good) + 1) + [False] * len(bad)
    assert typed[: len(good)].notna().all()
    assert typed[len(good) :].isna().all()


def test_times_with_and_without_zone_are_utc():
    typed, _ = parse(pa.array(["2018-05-01 10:00:00", "2018-05-01T10:00:00+02:00"]), "timestamptz")
    assert typed.tolist() == [pd.Timestamp("2018-05-01 10:00", tz="UTC"), pd.Timestamp("2018-05-01 08:00", tz="UTC")]


def test_a_date_without_a_time_is_midnight_of_the_sources_own_clock():
    values = pa.array(["2018-07-01", "2018-07-01 00:00", "2018-07-01T00:00Z", "soon", None])
    midnight = "2018-06-30 22:00:00.000000Z"
    assert in_utc(values, "Europe/Berlin").to_pylist() == [midnight, midnight, "2018-07-01T00:00Z", "soon", None]
    assert in_utc(values, "UTC") == values
