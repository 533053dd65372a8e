"""Holidays of countries and their regions, from the ``holidays`` library: no network, no clock.

Holidays of year Y are known from 1 January of Y-1 on. Those that were known before the first landed day are known on
that day, so that a warehouse that begins in the middle of a year has them too.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from include.ingest.connectors.base import Batch, Connector, Found, Options, SourceError
from include.ingest.connectors.dump import catalogue_day
from include.ingest.sources import Entity, Source

EVERYWHERE = "all"
"""The region of a holiday of the whole country. A region's own list holds these as well."""
PUBLIC = "public"
COLUMNS = ("country", "region", "holiday_on", "holiday_name", "is_public")


class Holidays(Connector):
    """Yields ``country, region, holiday_on, holiday_name, is_public``; one row per country, region and date."""

    name = "holidays"

    class Connection(Options):
        countries: dict[str, list[str]] = Field(min_length=1, description="Country (ISO 3166) -> its regions.")
        first_day: date = Field(description="Nothing is known before it.")
        categories: list[str] = Field([], description="Beside public ones, where a country has them: bank, school...")
        language: str = "en_US"

        @model_validator(mode="after")
        def _exist(self) -> Holidays.Connection:
            import holidays

            for country, regions in self.countries.items():
                try:
                    there = holidays.country_holidays(country)
                except NotImplementedError:
                    raise ValueError(f"countries: the holidays library knows no country {country}") from None
                if lacking := set(regions) - set(there.subdivisions):
                    raise ValueError(f"countries.{country}: there is no region {min(lacking)}")
            return self

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        if unknown := set(entity.source_columns.values()) - set(COLUMNS):
            raise ValueError(f"entities.{name}.columns: there is no {min(unknown)}; there are {', '.join(COLUMNS)}")

    def span(self) -> tuple[date | None, date | None]:
        return self.connection.first_day, None

    def discover(self) -> dict[str, list[Found]]:
        types = {"holiday_on": "date", "is_public": "boolean"}
        return {
            name: [
                Found(column, types.get(column, "text"), is_nullable=False, is_key=column in COLUMNS[:3])
                for column in COLUMNS
            ]
            for name in self.source.entities
        }

    def read(self, first: date, last: date) -> Iterator[Batch]:
        begin = self.connection.first_day
        for name in self.source.entities:
            opened = catalogue_day(self.source, name, np.datetime64(begin), first)
            rows, known = [], []
            for year in range(begin.year, last.year + 2):
                day = max(date(year - 1, 1, 1), opened)
                if first <= day <= last:
                    of_year = list(self._of(year))
                    rows += of_year
                    known += [day] * len(of_year)
            yield Batch(
                name,
                pa.Table.from_pylist(rows, schema=pa.schema([(column, pa.string()) for column in COLUMNS])),
                file="holidays",
                partition_on=np.array(known, "datetime64[D]"),
            )

    def _of(self, year: int) -> Iterator[dict[str, Any]]:
        for country, regions in sorted(self.connection.countries.items()):
            for region in (EVERYWHERE, *sorted(regions)):
                yield from self._listed(country, region, year)

    def _listed(self, country: str, region: str, year: int) -> Iterator[dict[str, Any]]:
        import holidays

        of = {"years": [year], "language": self.connection.language}
        if region != EVERYWHERE:
            of["subdiv"] = region
        try:
            public = holidays.country_holidays(country, **of)
            wanted = {PUBLIC, *self.connection.categories} & set(public.supported_categories)
            every = holidays.country_holidays(country, **of, categories=tuple(sorted(wanted)))
        except (NotImplementedError, ValueError) as error:
            raise SourceError(f"{self.source.source}: the holidays of {country} cannot be listed: {error}") from error
        for day, names in sorted(every.items()):
            yield {
                "country": country,
                "region": region,
                "holiday_on": day.isoformat(),
                "holiday_name": names,
                "is_public": "true" if day in public else "false",
            }
