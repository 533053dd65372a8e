"""A connector with a switch for every mistake that the conformance suite is there to find."""

import logging
import random
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count

import numpy as np
import pyarrow as pa

from include.conformance import COLUMNS, Harness, described
from include.ingest import connectors
from include.ingest.connectors import Batch, Connector, Found, Options, SourceError

SECRET = "correct-horse-battery-staple"
SHELVES: dict[int, list[dict]] = {}
PROGRESS: dict[int, int] = defaultdict(int)
numbers = count()

FAULTS = {
    "none": set(),
    "goes_on_where_it_was_cut": {"test_read_that_was_cut_off_after_any_batch_is_read_again_whole"},
    "numbers_lines_over_all_days": {"test_range_is_the_union_of_its_days"},
    "forgets_the_last_page": {f"test_no_row_is_lost_or_comes_twice_over_page_boundaries[{n}]" for n in (1, 2, 7)},
    "repeats_the_boundary": {f"test_no_row_is_lost_or_comes_twice_over_page_boundaries[{n}]" for n in (1, 2, 7)},
    "only_one_page": {"test_no_row_is_lost_or_comes_twice_over_page_boundaries[7]"},
    "drops_the_last_row": {"test_no_row_is_lost_or_comes_twice_over_page_boundaries[10000]"},
    "pages_after_the_moment": {f"test_rows_of_one_moment_survive_a_page_boundary[{n}]" for n in (1, 2, 3)},
    "shuffles": {"test_second_read_gives_the_same_rows_in_the_same_places"},
    "numbers_lines_by_page": {"test_no_two_rows_have_one_place"},
    "known_by_position": {"test_order_in_which_the_source_holds_rows_does_not_matter"},
    "latin1": {"test_value_arrives_as_it_is[unicode]"},
    "doubles_quotes": {"test_value_arrives_as_it_is[quotes]"},
    "one_line": {"test_value_arrives_as_it_is[newlines]"},
    "splits_at_commas": {"test_value_arrives_as_it_is[separators]"},
    "strips": {"test_value_arrives_as_it_is[blanks]"},
    "reads_words_as_null": {"test_value_arrives_as_it_is[words that look like nothing]"},
    "reads_text_as_numbers": {"test_value_arrives_as_it_is[numbers that are text]"},
    "null_as_text": {"test_value_arrives_as_it_is[null]", "test_empty_text_is_empty_or_null_and_null_is_null"},
    "floats": {"test_value_arrives_as_it_is[big numbers]", "test_value_arrives_as_it_is[decimals]"},
    "false_as_null": {"test_value_arrives_as_it_is[booleans]"},
    "german_dates": {"test_value_arrives_as_it_is[dates]"},
    "seconds_only": {"test_value_arrives_as_it_is[microseconds]"},
    "drops_offsets": {"test_value_arrives_as_it_is[offsets]"},
    "last_second_is_late": {"test_days_begin_and_end_at_midnight_utc"},
    "day_of_what_happened": {"test_late_row_comes_on_the_day_on_which_it_became_known"},
    "logs_the_secret": {"test_secret_is_in_no_log_no_row_and_no_description"},
    "prints_the_secret": {"test_secret_is_in_no_log_no_row_and_no_description"},
    "secret_in_the_file_name": {"test_secret_is_in_no_log_no_row_and_no_description"},
    "secret_in_the_error": {"test_refused_login_is_a_plain_error_without_the_secret"},
    "secret_behind_the_error": {"test_refused_login_is_a_plain_error_without_the_secret"},
    "raises_whatever": {"test_source_that_is_gone_is_an_error_that_names_it"},
    "does_not_say_who": {"test_source_that_is_gone_is_an_error_that_names_it"},
    "hides_new_columns": {"test_column_that_the_yaml_does_not_name_is_reported"},
    "keys_of_the_first_page": {"test_keys_are_those_of_all_rows"},
    "discovers_half": {"test_discovery_finds_every_column"},
}
"""Fault -> the tests that it must turn red."""


class Shelf(Connector):
    """Rows that lie in this process's memory, handed out by pages."""

    name = "shelf"

    class Connection(Options):
        number: int
        page_size: int = 100
        fault: str = "none"
        login: str = "good"

    def _fault(self, name: str) -> bool:
        return self.connection.fault == name

    def read(self, first: date, last: date):
        self._log_in()
        shelf = self.connection.number
        at = "happened_at" if self._fault("day_of_what_happened") else "updated_at"
        start = datetime.combine(first, datetime.min.time(), UTC)
        end = datetime.combine(last, datetime.min.time(), UTC) + timedelta(days=1)
        if self._fault("last_second_is_late"):
            end -= timedelta(seconds=1)
        rows = [row for row in SHELVES[shelf] if start <= row[at] < end]
        if self._fault("shuffles"):
            random.shuffle(rows)
        elif not self._fault("known_by_position"):
            rows.sort(key=lambda row: (row["updated_at"], row["id"]))
        if self._fault("drops_the_last_row"):
            rows = rows[:-1]
        done = PROGRESS[shelf] if self._fault("goes_on_where_it_was_cut") else 0
        position = 0
        for page in list(self._pages(rows))[done:]:
            PROGRESS[shelf] += 1
            yield self._batch(page, position)
            position += len(page)
        PROGRESS[shelf] = 0

    def _log_in(self) -> None:
        if self._fault("logs_the_secret"):
            logging.getLogger("shelf").debug("password=%s", SECRET)
        if self._fault("prints_the_secret"):
            print("logged in as shelf with", SECRET)
        if self.connection.login == "refused":
            if self._fault("secret_in_the_error"):
                raise SourceError(f"{self.source.source}: the shelf does not take {SECRET}")
            try:
                raise OSError(SECRET if self._fault("secret_behind_the_error") else "401")
            except OSError as error:
                raise SourceError(
                    f"{self.source.source}: the shelf does not take the password: {type(error)}"
                ) from error
        if self.connection.number not in SHELVES:
            if self._fault("raises_whatever"):
                raise KeyError(self.source.source)
            who = "somebody" if self._fault("does_not_say_who") else self.source.source
            raise SourceError(f"{who}: there is no such shelf")

    def _pages(self, rows: list[dict]):
        size = self.connection.page_size
        starts = list(range(0, len(rows), size))
        if self._fault("forgets_the_last_page") and len(starts) > 1:
            starts = starts[:-1]
        if self._fault("only_one_page"):
            starts = starts[:1]
        for start in starts:
            if self._fault("pages_after_the_moment") and start:
                before = rows[start - 1]["updated_at"]
                yield [row for row in rows[start : start + size] if row["updated_at"] > before]
            elif self._fault("repeats_the_boundary") and start:
                yield rows[start - 1 : start + size]
            else:
                yield rows[start : start + size]

    def _batch(self, page: list[dict], position: int) -> Batch:
        line = known_at = None
        n = len(page)
        if self._fault("numbers_lines_by_page"):
            line = np.arange(1, n + 1)
        if self._fault("numbers_lines_over_all_days") or self._fault("shuffles"):
            line = np.arange(position + 1, position + n + 1)
        if self._fault("known_by_position"):
            days = np.array([row["updated_at"].date() for row in page], "datetime64[D]").astype("datetime64[us]")
            known_at = days + np.arange(position, position + n)
        names = dict.fromkeys(name for row in page for name in row)
        if self._fault("hides_new_columns"):
            names = [name for name in names if name in COLUMNS]
        rows = pa.table({name: pa.array([self._text(name, row[name]) for row in page], pa.string()) for name in names})
        file = f"shelf?key={SECRET}" if self._fault("secret_in_the_file_name") else "shelf"
        return Batch("things", rows, file=file, line=line, known_at=known_at)

    def _text(self, name: str, value) -> str | None:
        fault = self.connection.fault
        if value is None:
            return "None" if fault == "null_as_text" else None
        if isinstance(value, datetime):
            if name == "updated_at":
                return value.astimezone(UTC).isoformat()
            if fault == "seconds_only":
                value = value.replace(microsecond=0)
            return (value.replace(tzinfo=None) if fault == "drops_offsets" else value).isoformat()
        if isinstance(value, date):
            return f"{value:%d.%m.%Y}" if fault == "german_dates" else value.isoformat()
        if isinstance(value, bool):
            return None if fault == "false_as_null" and not value else str(value).lower()
        if isinstance(value, int | Decimal):
            if fault == "floats":
                return f"{float(value):.0f}" if isinstance(value, int) else repr(float(value))
            return str(value)
        return self._spoiled(value)

    def _spoiled(self, text: str) -> str | None:
        match self.connection.fault:
            case "latin1":
                return text.encode("latin-1", "replace").decode("latin-1")
            case "doubles_quotes":
                return text.replace('"', '""')
            case "one_line":
                return text.replace("\n", " ")
            case "splits_at_commas":
                return text.split(",")[0]
            case "strips":
                return text.strip(" ")
            case "reads_words_as_null":
                return None if text.lower() in ("null", "none", "nan", "na") else text
            case "reads_text_as_numbers":
                return str(int(text)) if text.isdecimal() else text
        return text

    def keys(self, entity: str) -> pa.Table:
        rows = SHELVES[self.connection.number]
        if self._fault("keys_of_the_first_page"):
            rows = rows[: self.connection.page_size]
        return pa.table({"id": [str(row["id"]) for row in rows]})

    def discover(self) -> dict[str, list[Found]]:
        names = list(SHELVES[self.connection.number][0])
        if self._fault("discovers_half"):
            names = names[:3]
        return {"shelf": [Found(name, COLUMNS[name]) for name in names]}


class ShelfHarness(Harness):
    """Serves from this process's memory."""

    secrets = (SECRET,)
    fault = "none"

    def __init__(self):
        # Known in the process that runs the suite, not in every one that reads FAULTS.
        connectors.OWN["shelf"] = f"{__name__}:Shelf"

    @contextmanager
    def serve(self, rows, page_size):
        number = next(numbers)
        SHELVES[number] = list(rows)
        yield described("shelf", {"number": number, "page_size": page_size, "fault": self.fault})

    @contextmanager
    def gone(self):
        yield described("shelf", {"number": -1, "fault": self.fault})

    @contextmanager
    def refused(self):
        yield described("shelf", {"number": -1, "fault": self.fault, "login": "refused"})


globals().update({fault: type(fault, (ShelfHarness,), {"fault": fault}) for fault in FAULTS})
