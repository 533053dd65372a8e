"""How the conformance suite puts rows into a till: pytest --emporium-connector=emporium_till_harness:TillHarness"""

import sqlite3
import tempfile
from contextlib import closing, contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from include.conformance import Harness, described

ZONE = "Asia/Kolkata"


class TillHarness(Harness):
    @contextmanager
    def serve(self, rows, page_size):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "till.db")
            with closing(sqlite3.connect(file)) as db, db:
                db.execute(f"create table thing ({', '.join(rows[0])})")
                marks = ", ".join("?" * len(rows[0]))
                db.executemany(f"insert into thing values ({marks})", [[*map(_stored, row.values())] for row in rows])
            connection = {"file": str(file), "page_size": page_size}
            yield described("till", connection, {"table": "thing"}, time_zone=ZONE)

    @contextmanager
    def gone(self):
        yield described("till", {"file": "/nowhere/till.db"}, {"table": "thing"})


def _stored(value):
    """As the till writes it: its own time, without a zone, and money as text, so that no digit is lost."""
    if isinstance(value, datetime):
        return f"{value.astimezone(ZoneInfo(ZONE)):%Y-%m-%d %H:%M:%S.%f}"
    return str(value) if isinstance(value, Decimal) else value
