"""What the generated source systems promise, seen in the small marketplace without a database."""

import csv
import gzip
import io
import json
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta

import numpy as np
import pytest

from include.demo import FULL, SMALL, generate
from include.demo.dirt import BROKEN_KINDS
from include.settings import settings


@pytest.fixture(scope="module")
def world():
    return generate(SMALL)


@pytest.fixture(scope="module")
def ledger(world):
    """{file: {line: {kinds}}} of the planted dirt."""
    lines = defaultdict(lambda: defaultdict(set))
    for flaw in world.truth["dirt"].to_pylist():
        if flaw["file"]:
            lines[flaw["file"]][flaw["line"]].add(flaw["kind"])
    return lines


def content(world, name: str) -> list[str]:
    raw = world.files[name.removeprefix("demo/")]
    return (gzip.decompress(raw) if name.endswith(".gz") else raw).decode().splitlines()


def test_full_size_meets_the_promised_size():
    assert FULL.shop.customers >= 5000
    assert FULL.shop.skus >= 400
    assert FULL.shop.vendors >= 40
    assert FULL.n_days > 2 * 365
    assert FULL.first_day == date.fromisoformat(settings().demo_start)
    assert FULL.last_day == date.fromisoformat(settings().demo_end)
    assert SMALL.last_day == date.fromisoformat(settings().demo_first_night)


def test_same_seed_same_bytes_other_seed_other_bytes(world, monkeypatch):
    again = generate(SMALL)
    assert again.files == world.files
    assert all(again.shop[name].equals(table) for name, table in world.shop.items())
    assert all(again.truth[name].equals(table) for name, table in world.truth.items())
    monkeypatch.setenv("EMPORIUM_SEED", "7")
    settings.cache_clear()
    try:
        other = generate(SMALL)
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    assert not other.shop["oc_order"].equals(world.shop["oc_order"])
    assert other.files != world.files


def test_nothing_in_the_shop_is_dated_after_the_last_day(world):
    end = np.datetime64(SMALL.last_day + timedelta(days=1))
    for name, table in world.shop.items():
        for column in ("date_added", "date_modified"):
            if column in table.column_names:
                assert table[column].to_numpy().max() < end, (name, column)


def test_an_order_shows_the_status_that_its_history_ends_with(world):
    history = defaultdict(list)
    for row in world.shop["oc_order_history"].to_pylist():
        history[row["order_id"]].append((row["date_added"], row["order_status_id"]))
    n_abandoned = 0
    for order in world.shop["oc_order"].to_pylist():
        changes = history.get(order["order_id"])
        if order["order_status_id"] == 0:
            n_abandoned += 1
            assert changes is None
            continue
        assert changes == sorted(changes, key=lambda change: change[0])
        assert changes[0] == (order["date_added"], 1)
        assert changes[-1] == (order["date_modified"], order["order_status_id"])
        assert tuple(status for _, status in changes) in {
            (1,), (1, 2), (1, 2, 3), (1, 2, 3, 5), (1, 2, 3, 5, 11), (1, 7), (1, 2, 7),
        }  # fmt: skip
    assert 0 < n_abandoned < 0.1 * world.shop["oc_order"].num_rows


def test_order_totals_add_up_to_the_cent(world):
    lines = Counter()
    for row in world.shop["oc_order_product"].to_pylist():
        assert round(row["quantity"] * row["price"] * 100) == round(row["total"] * 100)
        lines[row["order_id"]] += round(row["total"] * 100)
    parts = defaultdict(dict)
    for row in world.shop["oc_order_total"].to_pylist():
        parts[row["order_id"]][row["code"]] = round(row["value"] * 100)
    for order in world.shop["oc_order"].to_pylist():
        part = parts[order["order_id"]]
        total = part.pop("total")
        assert total == sum(part.values()) == round(order["total"] * 100)
        assert part["sub_total"] == lines[order["order_id"]]


def test_every_product_has_one_category_one_vendor_and_a_name(world):
    products = set(world.shop["oc_product"]["product_id"].to_pylist())
    for table in ("oc_product_description", "oc_product_to_category", "oc_vendor_product"):
        assert sorted(world.shop[table]["product_id"].to_pylist()) == sorted(products)
    assert set(world.shop["oc_order_product"]["product_id"].to_pylist()) <= products
    assert set(world.shop["oc_vendor_product"]["vendor_id"].to_pylist()) == set(
        world.shop["oc_vendor"]["vendor_id"].to_pylist()
    )


def test_no_product_is_sold_before_it_is_listed(world):
    listed = dict(zip(*(world.shop["oc_product"][c].to_pylist() for c in ("product_id", "date_added")), strict=True))
    ordered = dict(zip(*(world.shop["oc_order"][c].to_pylist() for c in ("order_id", "date_added")), strict=True))
    for row in world.shop["oc_order_product"].to_pylist():
        assert listed[row["product_id"]] <= ordered[row["order_id"]]


def test_every_day_has_every_file(world):
    days = [SMALL.first_day + timedelta(days=i) for i in range(SMALL.n_days)]
    entities = ("orders", "order_items", "payments", "shipments", "products", "vendors", "refunds", "reviews")
    assert set(world.files) == {f"outlet/{d}/{e}.csv" for d in days for e in entities} | {
        f"clicks/{d}.jsonl.gz" for d in days
    }


def broken_csv(entity: str, header: list[str], row: list[str]) -> set[str]:
    """Why a row cannot be loaded, worked out from the row alone."""
    if len(row) != len(header):
        return {"wrong_column_count"}
    fields = dict(zip(header, row, strict=True))
    found = set()
    if any(not fields[key] for key in header[: 2 if entity in ("order_items", "payments") else 1]):
        found.add("missing_key")
    for name in ("unit_price", "freight", "amount", "list_price"):
        if name in fields:
            try:
                float(fields[name])
            except ValueError:
                found.add("not_a_number")
    if "quantity" in fields and not (fields["quantity"].isdigit() and int(fields["quantity"]) > 0):
        found.add("bad_quantity")
    for name in header:
        if name.endswith("_at") and fields[name]:
            try:
                datetime.fromisoformat(fields[name])
            except ValueError:
                found.add("impossible_date")
    return found


def test_the_ledger_names_every_broken_csv_row_and_no_other(world, ledger):
    n_broken = 0
    for name in (n for n in world.files if n.startswith("outlet/")):
        entity = name.rsplit("/", 1)[1].removesuffix(".csv")
        header, *rows = csv.reader(io.StringIO(world.files[name].decode()))
        day, n_in_file = name.split("/")[1], 0
        for line, row in enumerate(rows, start=2):
            planted = ledger[f"demo/{name}"][line] & set(BROKEN_KINDS)
            assert broken_csv(entity, header, row) == planted, (name, line, row)
            n_in_file += bool(planted)
            if not planted:
                assert row[-1][:10] == day, "a file of a day holds what became known on that day"
        n_broken += n_in_file
        assert n_in_file <= 0.05 * len(rows), name
    assert n_broken > 0


def test_the_ledger_names_every_repeated_and_corrected_csv_row(world, ledger):
    kinds = Counter()
    for name in (n for n in world.files if n.startswith("outlet/")):
        lines = content(world, name)
        for number in range(2, len(lines)):
            is_repeat = lines[number] == lines[number - 1]
            assert is_repeat == ("repeated_row" in ledger[f"demo/{name}"][number + 1]), (name, number + 1)
            kinds["repeated_row"] += is_repeat
    for flaw in world.truth["dirt"].to_pylist():
        if flaw["kind"] == "correction":
            column, change = flaw["detail"].split(": ")
            new = change.split(" -> ")[1]
            lines = content(world, flaw["file"])
            row = dict(zip(lines[0].split(","), lines[flaw["line"] - 1].split(","), strict=True))
            assert row[column] == new
            kinds["correction"] += 1
    assert kinds["repeated_row"] > 0
    assert kinds["correction"] > 0


def test_the_ledger_names_every_broken_late_and_repeated_event(world, ledger):
    seen, kinds = set(), Counter()
    for name in sorted(n for n in world.files if n.startswith("clicks/")):
        day, n_broken = name[7:17], 0
        lines = content(world, name)
        for number, line in enumerate(lines, start=1):
            planted = ledger[f"demo/{name}"][number]
            try:
                event = json.loads(line)
                is_broken = not isinstance(event, dict) or event["event_at"] != event["event_at"]
            except ValueError:
                is_broken = True
            assert is_broken == bool(planted & set(BROKEN_KINDS)), (name, number, line)
            n_broken += is_broken
            kinds.update(planted)
            if is_broken:
                continue
            assert event["sent_at"][:10] == day
            is_late = (date.fromisoformat(day) - date.fromisoformat(event["event_at"][:10])).days >= 1
            if is_late and event["event_at"][11:16] != "23:59" and not planted:
                pytest.fail(f"{name}:{number} is late and not in the ledger")
            assert (event["event_id"] in seen) == ("repeated_event" in planted)
            seen.add(event["event_id"])
        assert n_broken <= 0.01 * len(lines)
    assert {"late_event", "repeated_event"} <= set(kinds)
    assert set(kinds) & set(BROKEN_KINDS)


def test_a_purchase_event_belongs_to_an_order_and_follows_its_cart(world):
    orders = world.shop["oc_order"].to_pylist()
    ordered_on = {(row["email"].lower(), row["date_added"].date()) for row in orders if row["order_status_id"]}
    n_purchases, n_after_cart, carts = 0, 0, set()
    for name in sorted(n for n in world.files if n.startswith("clicks/")):
        for line in content(world, name):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if not isinstance(event, dict) or event["event_at"] != event["event_at"]:
                continue
            if event["event_type"] == "cart":
                carts.add((event["visitor_id"], event["product_id"]))
            if event["event_type"] == "purchase":
                n_purchases += 1
                n_after_cart += (event["visitor_id"], event["product_id"]) in carts
                if event["customer_email"]:
                    on = date.fromisoformat(event["event_at"][:10])
                    assert (event["customer_email"], on) in ordered_on
    assert n_purchases > 500
    assert n_after_cart > 0.95 * n_purchases


def test_addresses_are_under_example_domains_and_shared_between_the_shops(world):
    shop = set(world.shop["oc_customer"]["email"].to_pylist())
    rows = [r for r in world.truth["customer"].to_pylist() if r["marketplace"] == "demo_outlet"]
    outlet = {row["email"] for row in rows}
    assert all(address.endswith(("@example.com", "@example.org")) for address in shop | outlet)
    assert len(shop & outlet) == round(SMALL.shared_share * SMALL.outlet.customers)


def test_fraud_bursts_are_short_and_by_new_accounts(world):
    orders = {row["order_id"]: row for row in world.shop["oc_order"].to_pylist()}
    opened = {row["customer_id"]: row["date_added"] for row in world.shop["oc_customer"].to_pylist()}
    bursts = defaultdict(list)
    for row in world.truth["fraud_order"].to_pylist():
        bursts[row["burst"]].append(orders[int(row["order_id"])])
    assert len(bursts) == SMALL.fraud_bursts
    for burst in bursts.values():
        times = [order["date_added"] for order in burst]
        assert max(times) - min(times) <= timedelta(hours=3)
        assert len(burst) >= 10
        assert all(order["date_added"] - opened[order["customer_id"]] < timedelta(hours=1) for order in burst)
