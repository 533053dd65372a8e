"""Business days and the two moments that bound them. Nothing here reads the clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta


def parse_day(text: str) -> date:
    """``YYYY-MM-DD`` as a date; ``ValueError`` that says so otherwise."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a business day; write YYYY-MM-DD.") from error


def start_of(day: date) -> datetime:
    """00:00 UTC of ``day``."""
    return datetime.combine(day, time.min, tzinfo=UTC)


def end_of(day: date) -> datetime:
    """00:00 UTC of the day after: 'as of ``day``' means known strictly before this moment."""
    return start_of(day + timedelta(days=1))


def days(first: date, last: date) -> Iterator[date]:
    """Every day from ``first`` to ``last``, both included."""
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def month_firsts(last: date, n: int) -> list[date]:
    """The ``n`` newest first-of-month days that are not after ``last``, oldest first."""
    firsts: list[date] = []
    year, month = last.year, last.month
    while len(firsts) < n:
        firsts.append(date(year, month, 1))
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
    return firsts[::-1]


def cut(sizes: Mapping[date, int], most: int) -> Iterator[tuple[date, date]]:
    """Ranges of consecutive days that hold at most ``most`` together; a day with more has one with empty days."""
    begin = end = next(iter(sizes))
    total = 0
    for day, n in sizes.items():
        if n and total and total + n > most:
            yield begin, end
            begin, total = day, 0
        end, total = day, total + n
    yield begin, end
