"""The data dictionary: descriptions reach the columns that readers see."""

import json

import pytest

from include.dictionary import (
    BEGIN,
    END,
    GLOSSARY,
    Column,
    Table,
    describe,
    read_core,
    render,
    settings_table,
    write_settings,
)

TABLES = [
    Table("bi", "fact_order", "", (Column("order_id", "text"), Column("ordered_on", "date"))),
    Table("published", "fact_order", "", (Column("order_id", "text"), Column("ordered_on", "date"))),
    Table("bi", "churn_score", "", (Column("decile", "smallint"),)),
    Table("bi", "churn_score_latest", "", (Column("decile", "smallint"),)),
    Table("predictions", "churn_score", "Grain: as_of, customer", (Column("decile", "smallint", "1 is most at risk"),)),
    Table(
        "ops",
        "load_audit",
        "Grain: source | entity",
        (Column("n_in", "bigint", "rows <in>"), Column("token", "bigint")),
    ),
]
MODELS = {"fact_order": ("Grain: marketplace, order.", {"order_id": "The shop's number"})}


def described() -> dict[str, Table]:
    return {f"{table.schema}.{table.name}": table for table in describe(TABLES, MODELS)}


def test_bi_view_takes_the_model_description():
    table = described()["bi.fact_order"]
    assert table.description == "Grain: marketplace, order."
    assert [column.description for column in table.columns] == ["The shop's number", ""]


def test_bi_view_takes_the_comments_of_the_table_behind_it():
    assert described()["bi.churn_score"].description == "Grain: as_of, customer"
    for name in ("bi.churn_score", "bi.churn_score_latest"):
        assert described()[name].columns[0].description == "1 is most at risk"


def test_glossary_comes_last():
    n_in, token = described()["ops.load_audit"].columns
    assert n_in.description == "rows <in>"
    assert token.description == GLOSSARY["token"]
    bought = Table("bi", "fact_order", "", (Column("customer_id", "text"),))
    [of_model] = describe([bought], {"fact_order": ("", {"customer_id": "Who bought"})})
    assert of_model.columns[0].description == "Who bought"


def test_page_lists_a_table_behind_a_view_once():
    page = render(list(described().values()))
    assert page.count("| `decile` | smallint |") == 2
    assert "### predictions.churn_score\n\nColumns as in [bi.churn_score](#bichurn_score)." in page


def test_page_escapes_what_markdown_would_eat():
    page = render(list(described().values()))
    assert "Grain: source \\| entity" in page
    assert "| `n_in` | bigint | rows &lt;in> |" in page


def test_page_is_the_same_in_whatever_order_tables_come():
    tables = list(described().values())
    assert render(tables[::-1]) == render(tables)


def test_marts_that_are_not_in_bi_are_listed_by_their_contracts(tmp_path):
    about = {
        "description": "Grain: d.",
        "columns": {"known_on": {"name": "known_on", "data_type": "date", "description": "The day"}},
    }
    nodes = [
        {"name": "version_orders", "resource_type": "model", "schema": "core", **about},
        {"name": "fact_order", "resource_type": "model", "schema": "core", **about},
        {"name": "int_orders", "resource_type": "model", "schema": "intermediate", **about},
        {"name": "a_test", "resource_type": "test", "schema": "core", **about},
    ]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"nodes": dict(enumerate(nodes))}))
    assert read_core(path, {"fact_order"}) == [
        Table("core", "version_orders", "Grain: d.", (Column("known_on", "date", "The day"),))
    ]


def test_settings_table_replaces_only_what_lies_between_the_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_settings(page)
    write_settings(page)
    assert page.read_text() == f"before\n{BEGIN}\n{settings_table()}\n{END}\nafter\n"


def test_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="has no"):
        write_settings(page)
    assert page.read_text() == "nothing here\n"
