"""Daily weather of places, from an API that speaks like Open-Meteo's archive; every good answer is kept.

Where the API does not answer, or does not know a day yet, a row is still there, marked ``is_estimated``: with the
values of the same calendar day of the newest year that is kept, else of the newest day before it, else without
values. A later landing of the day, and the landings of the ``revisit_days`` days after it, bring what really was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field

from include.dates import days
from include.ingest.connectors.base import Batch, Connector, Found, Options, SourceError
from include.ingest.connectors.http import HttpConnection, HttpSession, Refused, Unreachable
from include.ingest.sources import Entity, Source
from include.settings import settings

DAY = np.timedelta64(1, "D")
TICK = np.timedelta64(1, "us")
MADE = ("place", "weather_on", "is_estimated")
Values = dict[str, str | None]
"""Name of a daily value -> the number as the API spelled it."""


class Place(Options):
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class Weather(Connector):
    """Yields ``place, weather_on, is_estimated`` and the daily values, of each day and the ones before it."""

    name = "weather"

    class Connection(HttpConnection):
        path: str = "/v1/archive"
        places: dict[str, Place] = Field(min_length=1)
        daily: list[str] = Field(min_length=1, description="Names of the API's daily values.")
        first_day: date
        revisit_days: int = Field(7, ge=0, description="Archives lag: so many days before each day are read again.")

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        there = (*MADE, *source.connection["daily"])
        if unknown := set(entity.source_columns.values()) - set(there):
            raise ValueError(f"entities.{name}.columns: there is no {min(unknown)}; there are {', '.join(there)}")

    def __enter__(self) -> Self:
        self.session = HttpSession(self.source.source, self.connection)
        self.authentication = self.session.authentication()
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def span(self) -> tuple[date | None, date | None]:
        return self.connection.first_day, None

    def discover(self) -> dict[str, list[Found]]:
        made = [
            Found("place", "text", is_nullable=False, is_key=True),
            Found("weather_on", "date", is_nullable=False, is_key=True),
            Found("is_estimated", "boolean", is_nullable=False),
        ]
        values = [Found(name, "numeric(18,4)") for name in self.connection.daily]
        return {name: [*made, *values] for name in self.source.entities}

    def read(self, first: date, last: date) -> Iterator[Batch]:
        return self._read(first, last, keeps=True)

    def look(self, day: date) -> Iterator[Batch]:
        return self._read(day, day, keeps=False)

    def _read(self, first: date, last: date, *, keeps: bool) -> Iterator[Batch]:
        since = max(first - timedelta(days=self.connection.revisit_days), self.connection.first_day)
        by_place = {place: self._weather(place, since, last, keeps) for place in sorted(self.connection.places)}
        rows: list[dict[str, Any]] = []
        known_on: list[date] = []
        for day in days(first, last):
            oldest = max(day - timedelta(days=self.connection.revisit_days), since)
            for place, weather in by_place.items():
                for weather_on in days(oldest, day):
                    values, is_estimated = weather[weather_on]
                    made = {"place": place, "weather_on": str(weather_on), "is_estimated": str(is_estimated).lower()}
                    rows.append(made | values)
                    known_on.append(day)
        partition_on = np.array(known_on, "datetime64[D]")
        for name in self.source.entities:
            yield Batch(
                name,
                rows,
                file=self.connection.path,
                partition_on=partition_on,
                # A day's weather is known when it is over.
                known_at=partition_on.astype("datetime64[us]") + DAY - TICK,
            )

    def _weather(self, place: str, first: date, last: date, keeps: bool) -> dict[date, tuple[Values, bool]]:
        """For every day the values and whether they are estimated."""
        kept = _Kept(settings().home / "cache" / "weather" / self.source.source / place)
        try:
            answered = self._ask(place, first, last)
            kept.add(answered)
            if keeps:
                kept.write()
        except Unreachable as error:
            print(f"{error} The weather of {place} is taken from what is kept, or estimated.")
            answered = {}
        found = {}
        for day in days(first, last):
            values = answered.get(day) or kept.of(day)
            found[day] = (values, False) if values else (kept.like(day) or dict.fromkeys(self.connection.daily), True)
        return found

    def _ask(self, place: str, first: date, last: date) -> dict[date, Values]:
        """The days that the API knows. ``Unreachable`` when it does not answer, or not about these days."""
        where = self.connection.places[place]
        params = {
            "latitude": str(where.latitude),
            "longitude": str(where.longitude),
            "start_date": str(first),
            "end_date": str(last),
            "daily": ",".join(self.connection.daily),
            "timezone": "UTC",
        }
        url = self.session.base_url.rstrip("/") + self.connection.path
        try:
            answer = self.session.get(
                url, params=params, headers=self.connection.headers, auth=self.authentication
            ).json()
        except Refused as error:
            if "out of allowed range" in str(error):
                raise Unreachable(f"{self.source.source}: the API does not know {first}..{last} yet.") from None
            raise
        daily = answer.get("daily") if isinstance(answer, dict) else None
        if not isinstance(daily, dict) or not isinstance(daily.get("time"), list):
            raise SourceError(f"{self.source.source}: the answer of {self.connection.path} has no `daily.time`.")
        if lacking := [name for name in self.connection.daily if len(daily.get(name) or []) != len(daily["time"])]:
            raise SourceError(f"{self.source.source}: the answer lacks {', '.join(lacking)} for each of its days.")
        found = {}
        for at, text in enumerate(daily["time"]):
            values = {name: daily[name][at] for name in self.connection.daily}
            # A day without any value is one that the archive does not have yet.
            if any(value is not None for value in values.values()):
                found[date.fromisoformat(text)] = values
        return found


class _Kept:
    """Answers about a place, a file a month; nothing estimated is ever kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.months: dict[str, dict[str, Values]] = {}
        self.changed: set[str] = set()

    def _month(self, month: str) -> dict[str, Values]:
        if month not in self.months:
            path = self.folder / f"{month}.json"
            self.months[month] = json.loads(path.read_text()) if path.exists() else {}
        return self.months[month]

    def add(self, answered: dict[date, Values]) -> None:
        """Know the days."""
        for day, values in answered.items():
            month = str(day)[:7]
            if self._month(month).get(str(day)) != values:
                self._month(month)[str(day)] = values
                self.changed.add(month)

    def write(self) -> None:
        """Keep what was added; a reader sees a month's file as it was or as it is now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for month in self.changed:
            beside = self.folder / f".{month}.{os.getpid()}"
            beside.write_text(json.dumps(self.months[month], indent=1))
            beside.replace(self.folder / f"{month}.json")

    def of(self, day: date) -> Values | None:
        """What the API once said of the day."""
        return self._month(str(day)[:7]).get(str(day))

    def like(self, day: date) -> Values | None:
        """The same calendar day of the newest year before, else the newest day before; nothing of what came later."""
        months = sorted((path.stem for path in self.folder.glob("*.json") if path.stem <= str(day)[:7]), reverse=True)
        before = [one for month in months for one in sorted(self._month(month), reverse=True) if one < str(day)]
        same = next((one for one in before if one[5:] == str(day)[5:]), None)
        found = same or next(iter(before), None)
        return self._month(found[:7])[found] if found else None
