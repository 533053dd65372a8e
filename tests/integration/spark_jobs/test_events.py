import random
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from include.ingest.sources import Source
from spark_jobs.events import SCHEMA, conformed, is_bot_agent, once_a_day
from tests.integration.spark_jobs.world import event, frames, moment

pytestmark = pytest.mark.integration

BRONZE = "`id` string, `at` string, `price` string, `who` string, partition_on date, known_at timestamp, _file string, "
DAY = date(2025, 1, 2)
SOURCE = Source.model_validate(
    {
        "source": "clicks",
        "type": "stream",
        "marketplace": "shop",
        "currency": "USD",
        "connection": {"folder": "clicks"},
        "entities": {
            "events": {
                "key": ["id"],
                "columns": {
                    "id": {"required": True},
                    "at": {"type": "timestamptz"},
                    "price": {"type": "numeric(18,4)"},
                    "who": {},
                },
                "events": {
                    "event_id": "id",
                    "visitor_id": "upper(id)",
                    "event_type": "if(price > 10, 'cart', 'view')",
                    "event_at": "at",
                    "customer_id": "who",
                },
            }
        },
    }
)


def made(spark: SparkSession, **row: Any) -> dict[str, Any]:
    values = {"id": "a", "at": "2025-01-01 23:30:00-02:00", "price": "10.0001", "who": " ", **row}
    landed = (*values.values(), DAY, moment(DAY), "f.jsonl", 7)
    rows = spark.createDataFrame([landed], BRONZE + "_line bigint")
    (found,) = conformed(rows, SOURCE, SOURCE.entities["events"]).collect()
    return found.asDict()


def test_strings_become_events_by_the_sql_of_the_yaml(spark: SparkSession) -> None:
    found = made(spark)
    assert list(found) == [part.split()[0] for part in SCHEMA.split(", ")]
    at = datetime(2025, 1, 2, 1, 30, tzinfo=UTC)
    assert (found["event_at"].astimezone(UTC), found["event_on"], found["known_on"]) == (at, DAY, DAY)
    assert (found["event_id"], found["visitor_id"], found["event_type"]) == ("a", "A", "cart")
    # Blank is nobody, and what the YAML does not name is null.
    assert (found["customer_id"], found["campaign"], found["is_bot_agent"]) == (None, None, False)
    assert made(spark, price="10")["event_type"] == "view"


def test_an_event_without_a_time_names_its_line(spark: SparkSession) -> None:
    with pytest.raises(PySparkException, match=r"clicks: events\.event_at is null in f\.jsonl:7"):
        made(spark, at="soon")


def test_of_an_event_sent_again_on_a_day_the_newest_and_fullest_stays_whatever_the_order(spark: SparkSession) -> None:
    noon = moment(DAY, 43_200)
    sent = [
        event("twice", noon), event("twice", noon), event("twice", noon, customer_id="bob"),
        event("twice", noon, known_at=moment(DAY, 50_000), customer_id=None), event("other", noon),
        event("twice", noon, visitor_id="somebody else"), event("twice", noon, known_on=date(2025, 1, 5)),
        event("alike", noon), event("alike", noon, campaign="ads"), event("alike", noon, campaign="mail"),
    ]  # fmt: skip
    seen = set()
    for seed in range(3):
        random.Random(seed).shuffle(sent)
        rows = once_a_day(frames(spark, events=sent)["events"]).collect()
        seen.add(tuple(sorted(str(row) for row in rows)))
    assert len(seen) == 1
    kept = {(row["event_id"], row["visitor_id"], row["known_on"]): row for row in rows}
    assert len(kept) == len(rows) == 5
    assert kept["twice", "visitor", DAY]["customer_id"] is None
    assert kept["alike", "visitor", DAY]["campaign"] == "mail"


def test_robots_are_known_by_what_they_say(spark: SparkSession) -> None:
    said = {
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": True,
        "curl/8.5.0": True,
        "Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120.0": True,
        "Mozilla/5.0 (Linux; Android 9; CUBOT_X18_Plus) Chrome/120.0": False,
        "Mozilla/5.0 (Linux; Android 9; CUBOT_X18_Plus; AhrefsBot/7.0)": True,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/128.0": False,
        "": False,
    }
    rows = spark.createDataFrame([(one,) for one in [*said, None]], "agent string")
    found = {
        row["agent"]: row["is_bot"]
        for row in rows.select("agent", is_bot_agent(F.col("agent")).alias("is_bot")).collect()
    }
    assert found == said | {None: False}
