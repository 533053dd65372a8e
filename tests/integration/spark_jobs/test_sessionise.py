import random
from datetime import date, timedelta
from hashlib import md5

import pytest
from pyspark.sql import SparkSession

from spark_jobs.sessionise import BOT_EVENTS_PER_DAY, BOT_EVENTS_PER_MINUTE, of_versions, sessions_at_cutoffs
from tests.integration.spark_jobs import oracle
from tests.integration.spark_jobs.world import START, Row, event, frames, moment

pytestmark = pytest.mark.integration

COUNTS = {"n_product_views": "view", "n_cart_adds": "cart", "n_purchases": "purchase"}
ALIKE = ("source", "marketplace", "visitor_id", "session_on", "started_at", "ended_at", "customer_id", "campaign",
         "n_events", "is_bot", "known_at")  # fmt: skip


def made(spark: SparkSession, events: list[Row]) -> dict[str, Row]:
    """session_id -> session, of now."""
    rows = of_versions(frames(spark, events=events)["events"]).collect()
    found = {row["session_id"]: utc(row.asDict()) for row in rows}
    assert len(found) == len(rows)
    return found


def utc(row: Row) -> Row:
    return {name: value.astimezone(START_AT.tzinfo) if hasattr(value, "astimezone") else value
            for name, value in row.items()}  # fmt: skip


START_AT = moment(START)


def expected(events: list[Row], as_of: date) -> dict[str, Row]:
    found = {}
    for visit in oracle.visits(events, as_of):
        text = f"{visit['marketplace']}|{visit['visitor_id']}|{visit['session_on']}|{visit['first']}"
        columns = {name: visit[name] for name in ALIKE} | {name: visit[of] for name, of in COUNTS.items()}
        found[md5(text.encode(), usedforsecurity=False).hexdigest()] = columns
    return found


def random_events(seed: int, n_visitors: int = 60) -> list[Row]:
    """Visitor-days full of near misses: gaps around 30 minutes and midnight, ties, campaigns, corrections, bots."""
    dice = random.Random(seed)
    events = []
    for visitor in range(n_visitors):
        at = moment(START, dice.choice([0, 40_000, 84_000]))
        for _ in range(dice.randrange(1, 14)):
            at += timedelta(seconds=dice.choice([0, 1, 600, 1799, 1800, 1801, 5000]))
            first = event(
                f"{dice.randrange(20):02}", at, visitor_id=f"v{visitor}", customer_id=dice.choice([None, "ann", "bob"]),
                event_type=dice.choice(["view", "cart", "search", "purchase"]), is_bot_agent=dice.random() < 0.01,
                campaign=dice.choice([None, None, "mail", "ads"]),
            )  # fmt: skip
            if any(first["event_id"] == one["event_id"] and one["visitor_id"] == first["visitor_id"]
                   and one["event_on"] == first["event_on"] for one in events):  # fmt: skip
                continue
            events.append(first)
            if dice.random() < 0.2:
                known = first["known_on"] + timedelta(days=dice.randrange(1, 5))
                news = {"known_on": known, "known_at": moment(known), "known_month": known.replace(day=1)}
                events.append(first | news | {"campaign": "ads", "customer_id": "eve"})
    dice.shuffle(events)
    return events


def test_equals_an_independent_oracle(spark: SparkSession) -> None:
    events = random_events(seed=3)
    found = made(spark, events)
    wanted = expected(events, date.max)
    assert found.keys() == wanted.keys()
    for session_id, columns in wanted.items():
        assert {name: found[session_id][name] for name in columns} == columns
    assert len(found) > 150


def test_as_of_cutoffs_equals_the_oracle_at_each_of_them(spark: SparkSession) -> None:
    events = random_events(seed=5, n_visitors=25)
    cutoffs = [START + timedelta(days=n) for n in (0, 1, 3, 30)]
    frame = frames(spark, events=events)["events"]
    rows = [utc(row.asDict()) for row in sessions_at_cutoffs(of_versions(frame), frame, cutoffs).collect()]
    for number, cutoff in enumerate(cutoffs):
        found = {row["session_id"]: row for row in rows if row["first_cutoff"] <= number <= row["last_cutoff"]}
        wanted = expected(events, cutoff)
        assert found.keys() == wanted.keys(), cutoff
        for session_id, columns in wanted.items():
            assert {name: found[session_id][name] for name in columns} == columns


def starts(spark: SparkSession, *clicks: tuple[float, str | None]) -> list[float]:
    """Seconds of the day at which sessions start, of clicks at (seconds, campaign)."""
    events = [event(f"{n}", moment(START, at), campaign=campaign) for n, (at, campaign) in enumerate(clicks)]
    return sorted((row["started_at"] - START_AT).total_seconds() for row in made(spark, events).values())


def test_silence_of_30_minutes_and_midnight_end_a_session(spark: SparkSession) -> None:
    assert starts(spark, (0, None), (1799.999999, None), (3599.999999, None)) == [0, 3599.999999]
    assert starts(spark, (86_399, None), (86_401, None)) == [86_399, 86_401]


def test_another_campaign_ends_a_session_and_no_campaign_does_not(spark: SparkSession) -> None:
    assert starts(spark, (0, "mail"), (10, None), (20, "mail"), (30, "ads"), (40, None), (50, "mail")) == [0, 30, 50]
    assert starts(spark, (0, None), (10, "mail"), (20, None)) == [0, 10]
    assert starts(spark, (0, "mail"), (4000, None), (4010, "mail")) == [0, 4000]


@pytest.fixture(scope="module")
def suspects(spark: SparkSession) -> dict[str, bool]:
    """Visitor -> whether all of its sessions are a bot's (they never differ)."""

    def clicks(visitor: str, n: int, seconds: float, **values: object) -> list[Row]:
        return [event(f"{k:04}", moment(START, k * seconds), visitor_id=visitor, **values) for k in range(n)]

    minute, day = BOT_EVENTS_PER_MINUTE, BOT_EVENTS_PER_DAY
    events = [
        *clicks("burst", minute + 1, 59.9 / minute), event("calm", moment(START, 50_000), visitor_id="burst"),
        *clicks("quick", minute + 1, 60.0 / minute),
        *clicks("many", day + 1, 100), *clicks("busy", day, 100),
        *clicks("buyer", day, 100), event("buy", moment(START, 1), visitor_id="buyer", event_type="purchase"),
        event("agent", moment(START), visitor_id="agent", is_bot_agent=True),
        event("person", moment(START, 9_000), visitor_id="agent"),
    ]  # fmt: skip
    found: dict[str, set[bool]] = {}
    for row in made(spark, events).values():
        found.setdefault(row["visitor_id"], set()).add(row["is_bot"])
    assert all(len(flags) == 1 for flags in found.values()), found
    return {visitor: flags.pop() for visitor, flags in found.items()}


def test_bots_are_known_by_agent_burst_and_volume(suspects: dict[str, bool]) -> None:
    assert {visitor for visitor, is_bot in suspects.items() if is_bot} == {"burst", "many", "agent"}


def test_session_id_does_not_depend_on_what_comes_later_in_the_session(spark: SparkSession) -> None:
    first = event("1", moment(START))
    (before,) = made(spark, [first])
    (after,) = made(spark, [first, event("0", moment(START, 60))])
    assert before == after
