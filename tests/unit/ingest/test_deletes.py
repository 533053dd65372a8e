"""When keys are compared, and what stops it."""

from datetime import date, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.ingest.connectors import SourceError
from include.ingest.deletes import is_due, refuse_too_many
from include.ingest.extract import is_deleted
from include.ingest.sources import Deletes


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.integers(1, 40), st.integers(0, 100))
@settings(deadline=None)
def test_a_range_is_due_when_one_of_its_days_is_and_a_day_is_due_every_so_many_days(first, every, length):
    deletes = Deletes(by="keys", every_days=every)
    days = [first + timedelta(days=n) for n in range(length + 1)]
    assert is_due(deletes, days[0], days[-1]) == any(is_due(deletes, day, day) for day in days)
    window = [first + timedelta(days=n) for n in range(every)]
    assert sum(is_due(deletes, day, day) for day in window) == 1


@pytest.mark.parametrize(
    ("n_there", "n_known", "n_gone", "stops"),
    [(0, 1, 1, True), (0, 0, 0, False), (9, 10, 3, True), (9, 10, 2, False), (5, 0, 0, False)],
)
@pytest.mark.parametrize("max_share", [0.2, 1.0])
def test_a_source_that_lost_too_many_keys_deletes_nothing(n_there, n_known, n_gone, stops, max_share):
    deletes = Deletes(by="keys", max_share=max_share)
    # Whatever share is declared, a source without any key is broken.
    if not stops or (n_there and max_share == 1):
        refuse_too_many("s.e", deletes, n_there, n_known, n_gone)
        return
    with pytest.raises(SourceError, match="nothing is landed"):
        refuse_too_many("s.e", deletes, n_there, n_known, n_gone)


def test_a_tombstone_column_is_a_time_a_date_or_true():
    values = ["2025-01-01T00:00:00Z", "2025-01-01", "true", "1", "Y", None, "", "0", "False", "no", "N"]
    assert is_deleted(pa.array(values)).to_pylist() == [True] * 5 + [False] * 6
