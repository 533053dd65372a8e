"""The project's own generic tests, each against a model that breaks its rule: the failing rows are what it should say.

A small dbt project of its own with the macros of the real one, built into an analyst's schema.
"""

import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import yaml

from include import analyst, dbt
from include.warehouse.engine import connect

pytestmark = pytest.mark.integration

SCHEMA = "dev_generic"

MODELS = {
    "history": """
        select * from (values
          ('whole', '2025-01-01'::date, '2025-01-05'::date, false), ('whole', '2025-01-05', null, true),
          ('gap', '2025-01-01', '2025-01-05', false), ('gap', '2025-01-06', null, true),
          ('overlap', '2025-01-01', '2025-01-05', false), ('overlap', '2025-01-04', null, true),
          ('two_current', '2025-01-01', null, true), ('two_current', '2025-01-05', null, true),
          ('ended', '2025-01-01', '2025-01-05', false),
          ('empty', '2025-01-01', '2025-01-01', false), ('empty', '2025-01-01', null, true),
          ('no_begin', null, null, true),
          ('wrong_mark', '2025-01-01', null, false)
        ) as t (thing, valid_from, valid_to, is_current)""",
    "back_again": """
        select * from (values
          ('back', '2025-01-01'::date, '2025-01-05'::date), ('back', '2025-01-09', null),
          ('gone', '2025-01-01', '2025-01-05'),
          ('overlap', '2025-01-01', '2025-01-05'), ('overlap', '2025-01-04', '2025-01-09')
        ) as t (thing, valid_from, valid_to)""",
    "orders": """
        select * from (values
          ('same', 1, 10.00), ('cent', 1, 10.00), ('count', 2, 10.00), ('mine_only', 1, 5.00), ('both_zero', 0, 0.00)
        ) as t (marketplace, n_items, item_amount)""",
    "items": """
        select * from (values
          ('same', true, 10.00), ('same', false, 99.00), ('cent', true, 10.01), ('count', true, 10.00),
          ('theirs_only', true, 7.00)
        ) as t (marketplace, is_known, amount)""",
    "late": "select * from (values ('2025-01-06'::date), ('2025-01-01')) as t (known_on)",
    "in_time": "select '2025-01-07'::date as known_on",
    "never": "select null::timestamptz as known_at where false",
    "shrunk": "select * from generate_series(1, 79) as t (id)",
    "grown": "select * from generate_series(1, 121) as t (id)",
    "steady": "select * from generate_series(1, 80) as t (id)",
    "unknown_yesterday": "select 1 as id",
    "money": """
        select * from (values
          ('exact', 1.0001), ('largest', 99999999999999.9999), ('unknown', null),
          ('fifth_place', 1.00001), ('too_large', -1e14)
        ) as t (thing, amount)""",
    "parents": "select * from (values ('north', '1'), ('south', '2')) as t (shop, id)",
    "children": """
        select * from (values
          ('north', '1'), ('south', '2'), ('north', null), (null, '9'), ('north', '2'), ('north', '2')
        ) as t (shop, id)""",
}  # fmt: skip

RANGES = {"keys": ["thing"]}
ITEMS = {"to": "ref('items')", "by": ["marketplace"], "to_where": "is_known"}
TESTS: dict[str, list[tuple[str, str, dict]]] = {
    "history": [("sequential_ranges", "history_strict", {**RANGES, "is_current": "is_current"})],
    "back_again": [("sequential_ranges", "history_may_end", {**RANGES, "may_end": True})],
    "orders": [
        ("reconciles", "exact", {**ITEMS, "sums": {"item_amount": "amount", "n_items": 1}}),
        ("reconciles", "to_the_cent", {**ITEMS, "sums": {"item_amount": "amount"}, "tolerance": 0.01}),
        ("reconciles", "by_share", {**ITEMS, "sums": {"item_amount": "amount"}, "share": 0.001}),
    ],
    **{name: [("fresh", f"fresh_{name}", {"days": 3})] for name in ("late", "in_time")},
    "never": [("fresh", "fresh_never", {"days": 3, "column": "known_at"})],
    **{
        name: [("row_count_within", f"count_{name}", {"share": 0.2})]
        for name in ("shrunk", "grown", "steady", "unknown_yesterday")
    },
    "money": [("money_is_exact", "inexact", {"columns": ["amount"]})],
    "children": [("refers_to", "orphans", {"columns": ["shop", "id"], "to": "ref('parents')"})],
}


def project(folder: Path) -> Path:
    """A dbt project of ``MODELS`` and ``TESTS``."""
    shutil.copytree(dbt.PROJECT / "macros", folder / "macros")
    shutil.copy(dbt.PROJECT / "profiles.yml", folder)
    about = {"name": "emporium", "profile": "emporium", "data_tests": {"+store_failures": True}}
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(about))
    (folder / "models").mkdir()
    for name, text in MODELS.items():
        (folder / "models" / f"{name}.sql").write_text(text)
    described = [
        {"name": model, "data_tests": [{kind: {"name": name, "arguments": given}} for kind, name, given in tests]}
        for model, tests in TESTS.items()
    ]
    (folder / "models" / "models.yml").write_text(yaml.safe_dump({"version": 2, "models": described}))
    return folder


@pytest.fixture(scope="module")
def failures(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Test -> rows that it found, in a build as of 2025-01-10."""
    from dbt.cli.main import dbtRunner

    folder = project(tmp_path_factory.mktemp("generic") / "project")
    with connect("publisher") as conn:
        for as_of, n_rows in ((date(2025, 1, 8), 1), (date(2025, 1, 9), 100), (date(2025, 1, 10), 1)):
            for name in ("shrunk", "grown", "steady"):
                conn.execute("insert into ops.publication values (%s, %s, 1, %s, '')", (name, as_of, n_rows))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dbt.environment(analyst.ROLE, folder).items():
            patch.setenv(name, value)
        patch.setenv("EMPORIUM_DBT_SCHEMA", SCHEMA)
        patch.setenv("EMPORIUM_DBT_AS_OF", "2025-01-10")
        with connect(analyst.ROLE) as conn:
            conn.execute("select ops.make_dev_schema(%s)", (SCHEMA,))
        at = ["--project-dir", str(folder), "--profiles-dir", str(folder), "--target", "dev"]
        outcome = dbtRunner().invoke(["--log-level", "none", "--log-path", str(folder), "build", *at])
    assert outcome.exception is None
    yield {one.node.name: one.failures for one in outcome.result.results if str(one.node.resource_type) == "test"}
    with connect(analyst.ROLE) as conn:
        conn.execute(f"drop schema {SCHEMA} cascade")
    with connect("publisher") as conn:
        conn.execute("delete from ops.publication where target in ('shrunk', 'grown', 'steady')")
    os.environ.pop("EMPORIUM_DBT_SCHEMA", None)


def rows(query: str) -> list[tuple]:
    with connect(analyst.ROLE) as conn:
        return conn.execute(query).fetchall()  # type: ignore[arg-type]


def test_history_names_each_range_that_does_not_follow_the_one_before(failures: dict[str, int]) -> None:
    assert rows(f"select thing, problem from {SCHEMA}.history_strict order by thing") == [
        ("empty", "is empty"),
        ("ended", "is the last one and not open"),
        ("gap", "leaves a gap to the next one"),
        ("no_begin", "has no begin"),
        ("overlap", "overlaps the next one"),
        ("two_current", "is open, and another one follows"),
        ("wrong_mark", "is_current is wrong"),
    ]


def test_history_of_what_may_end_has_gaps_and_still_no_overlap(failures: dict[str, int]) -> None:
    assert rows(f"select thing, problem from {SCHEMA}.history_may_end") == [("overlap", "overlaps the next one")]


def test_reconciliation_finds_a_cent_a_missing_row_and_a_group_on_one_side_only(failures: dict[str, int]) -> None:
    columns = "marketplace, item_amount::text, to_item_amount::text, n_items, to_n_items"
    assert rows(f"select {columns} from {SCHEMA}.exact order by 1") == [
        ("cent", "10.00", "10.01", 1, 1),
        ("count", "10.00", "10.00", 2, 1),
        ("mine_only", "5.00", None, 1, None),
        ("theirs_only", None, "7.00", None, 1),
    ]


@pytest.mark.parametrize("name", ["to_the_cent", "by_share"])
def test_reconciliation_allows_what_its_tolerance_says_and_no_more(failures: dict[str, int], name: str) -> None:
    assert [row[0] for row in rows(f"select marketplace from {SCHEMA}.{name} order by 1")] == [
        "mine_only",
        "theirs_only",
    ]


def test_rows_older_than_the_business_day_allows_are_not_fresh_and_none_are_not_either(
    failures: dict[str, int],
) -> None:
    assert rows(f"select newest, as_of from {SCHEMA}.fresh_late") == [(date(2025, 1, 6), date(2025, 1, 10))]
    assert rows(f"select newest from {SCHEMA}.fresh_never") == [(None,)]
    assert failures["fresh_in_time"] == 0


def test_row_count_is_held_against_the_night_before_and_not_against_a_rerun(failures: dict[str, int]) -> None:
    assert rows(f"select as_of, n_rows_before, n_rows from {SCHEMA}.count_shrunk") == [(date(2025, 1, 9), 100, 79)]
    assert rows(f"select n_rows_before, n_rows from {SCHEMA}.count_grown") == [(100, 121)]
    assert (failures["count_steady"], failures["count_unknown_yesterday"]) == (0, 0)


def test_money_that_its_type_would_round_or_not_hold_is_found(failures: dict[str, int]) -> None:
    assert rows(f"select thing from {SCHEMA}.inexact order by 1") == [("fifth_place",), ("too_large",)]


def test_a_key_of_several_columns_is_looked_up_as_a_whole(failures: dict[str, int]) -> None:
    assert rows(f"select shop, id from {SCHEMA}.orphans") == [("north", "2")]
