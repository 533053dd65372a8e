"""Source YAMLs: what is wrong is said with file and field."""

import re

import pytest

from include.ingest.sources import FOLDER, Entity, load_source, parse_source, sources
from include.settings import ROOT

GOOD = """
source: corner_shop
group: demo
type: files
marketplace: corner_shop
currency: EUR
connection: {folder: demo/corner}
provides: [orders]
entities:
  orders:
    read: {file: orders}
    key: [order_id]
    columns:
      order_id: {required: true}
      total: {type: "numeric(18,4)", min: 0}
"""


def _parse(tmp_path, text):
    path = tmp_path / "corner_shop.yaml"
    path.write_text(text)
    return parse_source(path)


def test_every_yaml_of_the_project_is_a_source():
    assert {one.source for one in sources()} == {path.stem for path in FOLDER.glob("*.yaml")}
    assert [one.source for one in sources("demo")] == ["demo_clicks", "demo_outlet", "demo_shop"]


def test_a_good_yaml_is_read(tmp_path):
    source = _parse(tmp_path, GOOD)
    assert source.raw_schema == "raw_corner_shop"
    assert source.entities["orders"].source_columns == {"order_id": "order_id", "total": "total"}


def _changes(columns, **more):
    entity = Entity.model_validate(
        {"key": [columns[0]], "columns": {columns[0]: {"required": True}} | {name: {} for name in columns[1:]}, **more}
    )
    return {thing: change.column for thing, change in entity.changes.items()}


def test_a_row_changes_its_order_else_its_product_but_not_every_product_of_a_snapshot():
    assert _changes(["line_id", "order_id", "product_id"]) == {"orders": "order_id"}
    assert _changes(["product_id", "name"]) == {"products": "product_id"}
    assert _changes(["product_id", "name"], read={"snapshot": True}) == {}
    assert _changes(["sku", "name"], changes={"products": "sku"}) == {"products": "sku"}
    assert _changes(["order_id", "email"], changes={"customers": "email"}) == {
        "orders": "order_id",
        "customers": "email",
    }


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("type: files", "type: ftp", "there is no connector 'ftp'; types are: dump, files,"),
        ("currency: EUR", "currency: EUR\ntime_zone: Bonn", "'Bonn' is not a time zone"),
        ("currency: EUR", "currency: euro", "currency"),
        ("{folder: demo/corner}", "{}", "connection.folder: Field required"),
        ("read: {file: orders}", "read: {files: orders}", "entities.orders.read.files"),
        ("key: [order_id]", "key: [id]", "entities.orders: `key` names id"),
        ("{required: true}", "{}", "key column order_id"),
        ('"numeric(18,4)"', "money", "entities.orders.columns.total.type"),
        ("min: 0", "minimum: 0", "entities.orders.columns.total.minimum"),
        ("      total:", "      known_at:", "entities.orders.columns: known_at is what ingest adds to every row"),
        ("      total:", "      partition_on:", "partition_on is what ingest adds"),
        ("      total:", "      partition_month:", "partition_month is what ingest adds"),
        ("      total:", "      _total:", "entities.orders.columns._total"),
        ("    columns:", "    changes: {customers: email}\n    columns:", "entities.orders: `changes` names email"),
        ("    columns:", "    changes: {baskets: total}\n    columns:", "entities.orders.changes.baskets"),
        (
            "    columns:",
            "    changes: {products: {column: total, through: items.id}}\n    columns:",
            "`changes` of orders: there is no items.id",
        ),
        ("source: corner_shop", "source: [", "is not YAML"),
    ],
)
def test_a_wrong_yaml_names_file_and_field(tmp_path, old, new, named):
    assert old in GOOD
    with pytest.raises(ValueError) as error:
        _parse(tmp_path, GOOD.replace(old, new))
    assert "corner_shop.yaml" in str(error.value)
    assert named in str(error.value)


def test_an_unknown_source_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no source 'shopify'.*olist"):
        load_source("shopify")


def test_the_example_of_the_guide_is_a_source(tmp_path):
    example, more = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "add-a-source.md").read_text(), re.DOTALL)
    source = _parse(tmp_path, example + more)
    assert source.entities["orders"].rules[0].name == "ordered_before_updated"
    assert source.entities["orders"].min_rows.n == 1
