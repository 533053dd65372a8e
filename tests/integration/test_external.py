"""Holidays and weather: known when they could be, there when the API is not, and never guessed without saying so."""

import json
import os
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from expectations.check import judge
from expectations.raw import gate
from include.ingest.check import check
from include.ingest.connectors import SourceError
from include.ingest.extract import extract, span
from include.ingest.land import land
from include.ingest.load import load
from include.ingest.sources import FOLDER, Source, load_source
from include.ingest.tables import prepare
from include.settings import settings
from include.warehouse.engine import connect

pytestmark = pytest.mark.integration

DAY = date(2031, 3, 10)
ONE = timedelta(days=1)


@pytest.fixture(scope="module")
def lake(warehouse, tmp_path_factory):
    os.environ["EMPORIUM_LAKE"] = str(tmp_path_factory.mktemp("external") / "lake")
    settings.cache_clear()
    prepare()
    yield
    _empty()
    del os.environ["EMPORIUM_LAKE"]
    settings.cache_clear()


@pytest.fixture
def clean(lake, tmp_path, monkeypatch):
    """Nothing is landed, nothing is kept: the cache is in a home of its own."""
    _empty()
    cache = settings().home / "cache"
    if cache.exists():
        cache.rename(tmp_path / "cache")


def _empty():
    with connect() as conn:
        for table in ("raw_holidays.holidays", "raw_holidays._landed", "raw_weather.days", "raw_weather._landed"):
            conn.execute(f"truncate {table}")
        conn.execute("delete from ops.load_audit where source in ('holidays', 'weather')")


def _query(text, *values):
    with connect() as conn:
        return conn.execute(text, values).fetchall()


def _load(source, first, last):
    list(land(source, first, last))
    assert gate(source, first, last) == []
    return load(source, first, last)


# --- holidays ------------------------------------------------------------------------------------


def _holidays(**more):
    text = yaml.safe_load((FOLDER / "holidays.yaml").read_text())
    text["connection"] = {"first_day": date(2028, 1, 1), "countries": {"DE": ["BE"], "US": []}} | more
    return Source.model_validate(text)


def test_holidays_of_a_year_are_known_from_the_first_of_january_of_the_year_before(clean):
    source = _holidays()
    _load(source, date(2029, 12, 30), date(2030, 1, 2))
    found = _query(
        "select extract(year from holiday_on)::int, partition_on, count(*) > 5 from raw_holidays.holidays group by 1, 2"
    )
    first_landed = date(2029, 12, 30)
    assert sorted(found) == [
        (2028, first_landed, True),
        (2029, first_landed, True),
        (2030, first_landed, True),
        (2031, date(2030, 1, 1), True),
    ]
    assert _query("select count(*) from raw_holidays.holidays where known_at > holiday_on + interval '3 years'") == [
        (0,)
    ]


def test_a_rerun_of_any_day_decides_the_same(clean):
    source = _holidays()
    _load(source, date(2029, 12, 30), date(2030, 1, 2))
    before = _query("select * from raw_holidays.holidays order by 1, 2, 3")
    for day in (date(2030, 1, 2), date(2029, 12, 30), date(2030, 1, 1)):
        _load(source, day, day)
    assert _query("select * from raw_holidays.holidays order by 1, 2, 3") == before


def test_a_day_that_was_landed_before_anything_was_known_does_not_count_as_the_first(clean):
    source = _holidays()
    early, begun = date(2027, 12, 30), date(2028, 1, 5)
    _load(source, early, early)
    assert _query("select n_rows from raw_holidays._landed") == [(0,)]
    _load(source, begun, begun)
    found = _query("select distinct extract(year from holiday_on)::int, partition_on from raw_holidays.holidays")
    assert sorted(found) == [(2028, begun), (2029, begun)]


def test_a_region_has_its_own_holidays_and_those_of_the_country(clean):
    _load(_holidays(), date(2030, 6, 1), date(2030, 6, 1))
    names = "select holiday_name from raw_holidays.holidays where country = 'DE' and region = %s and holiday_on = %s"
    assert _query(names, "BE", date(2030, 3, 8)) == [("Women's Day",)]
    assert _query(names, "all", date(2030, 3, 8)) == []
    assert _query(names, "BE", date(2030, 12, 25)) == _query(names, "all", date(2030, 12, 25)) == [("Christmas Day",)]
    assert _query("select distinct is_public from raw_holidays.holidays") == [(True,)]


@pytest.mark.parametrize(
    ("countries", "said"), [({"XX": []}, "knows no country XX"), ({"DE": ["ZZ"]}, "there is no region ZZ")]
)
def test_a_country_that_is_none_is_named(countries, said):
    with pytest.raises(ValueError, match=said):
        _holidays(countries=countries)


def test_sources_of_the_outside_world_begin_and_do_not_end():
    for name, group in (("holidays", "reference"), ("weather", "external")):
        source = load_source(name)
        assert source.group == group
        assert span(source) == (source.connection["first_day"], None)


# --- weather -------------------------------------------------------------------------------------


def temperature(day, latitude=54.0):
    """A tenth of the day's number in the year, and a hundredth of the latitude."""
    return round(day.timetuple().tm_yday / 10 + latitude / 100, 2)


class _Sky(BaseHTTPRequestHandler):
    """An archive of temperatures, which may fail, lag behind, or not let the newest days be asked for."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        first, last = date.fromisoformat(query["start_date"]), date.fromisoformat(query["end_date"])
        sky = self.server
        if sky.fails:
            return self._send(503, {})
        if last > sky.allowed:
            return self._send(400, {"error": True, "reason": f"Parameter 'end_date' is out of allowed range to {last}"})
        on = [first + ONE * at for at in range((last - first).days + 1)]
        daily = {
            name: [None if day > sky.known else temperature(day, float(query["latitude"])) for day in on]
            for name in query["daily"].split(",")
        }
        return self._send(200, {"daily": {"time": list(map(str, on)), **daily}})

    def _send(self, status, payload):
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def sky():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sky)
    server.fails, server.known, server.allowed = False, date.max, date.max
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _weather(sky, revisit=2):
    text = yaml.safe_load((FOLDER / "weather.yaml").read_text())
    text["connection"] |= {
        "base_url": f"http://127.0.0.1:{sky.server_address[1]}",
        "places": {"kiel": {"latitude": 54, "longitude": 10}},
        "revisit_days": revisit,
        "requests_per_second": 1000,
        "retry": {"max_attempts": 2, "first_seconds": 0.001},
    }
    return Source.model_validate(text)


def _days(known_on):
    return _query(
        """select weather_on, temperature_mean::float, is_estimated from raw_weather.days
           where partition_on = %s order by 1""",
        known_on,
    )


def test_each_day_brings_itself_and_the_days_before_it_anew_and_is_known_when_it_is_over(clean, sky):
    _load(_weather(sky), DAY, DAY + ONE)
    assert _days(DAY) == [
        (DAY - 2 * ONE, temperature(DAY - 2 * ONE), False),
        (DAY - ONE, temperature(DAY - ONE), False),
        (DAY, temperature(DAY), False),
    ]
    assert [row[0] for row in _days(DAY + ONE)] == [DAY - ONE, DAY, DAY + ONE]
    assert _query("select distinct known_at::text from raw_weather.days where partition_on = %s", DAY) == [
        ("2031-03-10 23:59:59.999999+00",)
    ]


def test_what_was_answered_once_is_there_when_the_api_is_down(clean, sky):
    _load(_weather(sky), DAY, DAY)
    before = _days(DAY)
    sky.fails = True
    _load(_weather(sky), DAY, DAY)
    assert _days(DAY) == before


def test_trying_the_source_keeps_no_answer(clean, sky):
    found = check(_weather(sky), DAY, None, judge)
    assert (found.all_problems, found.entities[0].n_rows) == ([], 3)
    assert not (settings().home / "cache").exists()


def test_a_day_that_nobody_knows_is_marked_and_a_later_landing_replaces_it(clean, sky, capsys):
    source = _weather(sky)
    _load(source, DAY - ONE, DAY - ONE)
    sky.fails = True
    _load(source, DAY, DAY)
    assert "answers 503" in capsys.readouterr().out
    assert _days(DAY)[-1] == (DAY, temperature(DAY - ONE), True), "the newest day before, marked"
    sky.fails = False
    # The next night brings what really was, and so does the day itself, landed again.
    _load(source, DAY + ONE, DAY + ONE)
    assert _days(DAY + ONE)[1] == (DAY, temperature(DAY), False)
    _load(source, DAY, DAY)
    assert _days(DAY)[-1] == (DAY, temperature(DAY), False)


def test_the_same_day_of_an_earlier_year_is_a_better_guess_than_yesterday(clean, sky):
    source = _weather(sky, revisit=0)
    year_before = DAY.replace(year=DAY.year - 1)
    for day in (year_before, DAY - ONE, DAY + ONE):
        _load(source, day, day)
    sky.fails = True
    _load(source, DAY, DAY)
    assert _days(DAY) == [(DAY, temperature(year_before), True)]


def test_nothing_that_came_later_is_used_and_no_value_is_made_up(clean, sky):
    source = _weather(sky, revisit=0)
    _load(source, DAY + ONE, DAY + ONE)
    sky.fails = True
    _load(source, DAY, DAY)
    assert _days(DAY) == [(DAY, None, True)]


def test_a_day_that_the_archive_does_not_have_yet_is_marked(clean, sky):
    source = _weather(sky)
    sky.known = DAY - ONE
    _load(source, DAY, DAY)
    assert [row[2] for row in _days(DAY)] == [False, False, True]
    sky.allowed = DAY
    _load(source, DAY + ONE, DAY + ONE)
    assert [row[2] for row in _days(DAY + ONE)] == [False, True, True]


def test_a_server_that_is_gone_is_survived(clean, sky):
    source = _weather(sky)
    _load(source, DAY, DAY)
    sky.server_close()
    _load(source, DAY + ONE, DAY + ONE)
    assert [row[2] for row in _days(DAY + ONE)] == [False, False, True]


def test_an_answer_without_days_is_an_error(clean, sky):
    source = _weather(sky)
    changed = source.model_copy(update={"connection": source.connection | {"daily": ["temperature_2m_mean"]}})
    _Sky._send, kept = (lambda self, status, payload: kept(self, status, {"days": []})), _Sky._send
    try:
        with pytest.raises(SourceError, match=r"has no `daily\.time`"):
            list(extract(changed, DAY, DAY))
    finally:
        _Sky._send = kept


def test_the_cache_is_never_half_written(clean, sky):
    _load(_weather(sky), DAY, DAY)
    folder = settings().home / "cache" / "weather" / "weather" / "kiel"
    assert [path.name for path in folder.iterdir()] == ["2031-03.json"]
    assert set(json.loads((folder / "2031-03.json").read_text())) == {str(DAY - ONE * at) for at in range(3)}
