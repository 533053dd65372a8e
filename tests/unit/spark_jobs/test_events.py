from datetime import date

from spark_jobs.events import _ranges


def test_days_become_few_ranges_that_hold_them_all() -> None:
    days = [date.fromordinal(date(2020, 1, 1).toordinal() + n * n) for n in range(80)]
    ranges = _ranges(days)
    assert len(ranges) == 40
    assert all(sum(first <= day <= last for first, last in ranges) == 1 for day in days)
    assert _ranges([days[0]]) == [(days[0], days[0])]
    assert _ranges([]) == []
