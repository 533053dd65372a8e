"""What a YAML may say about events; a mistake is answered with the field."""

import pytest
from pydantic import ValidationError

from include.ingest.sources import Source

NEEDED = {"event_id": "id", "visitor_id": "id", "event_type": "'view'", "event_at": "at"}


def entity(events: dict[str, str] | None, **more: object) -> dict:
    columns = {"id": {"required": True}, "at": {"type": "timestamptz"}}
    return {"key": ["id"], "columns": columns, "events": events, **more}


def source(**entities: dict) -> Source:
    return Source.model_validate(
        {
            "source": "clicks",
            "type": "stream",
            "marketplace": "shop",
            "currency": "USD",
            "connection": {"folder": "clicks"},
            "entities": entities,
        }
    )


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ({"e": entity(NEEDED | {"colour": "id"})}, "`events` has no colour"),
        ({"e": entity({"event_id": "id"})}, "`events` must say what is the visitor_id"),
        ({"e": entity(NEEDED), "f": entity(NEEDED)}, "e and f both have `events`"),
        ({"e": entity(NEEDED), "sessions": entity(None)}, "give the entity `sessions` another name"),
        ({"e": entity(NEEDED, deletes={"by": "keys"})}, "deletes"),
    ],
)
def test_a_mistake_in_events_is_named(entities: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        source(**entities)


def test_events_have_no_raw_table() -> None:
    assert list(source(e=entity(NEEDED), other=entity(None)).raw_entities) == ["other"]
