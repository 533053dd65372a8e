"""Delta tables by partition: replaced as a whole, read with pruning."""

from datetime import date, timedelta

import pyarrow as pa
import pytest

from include import lake

FIRST = date(2025, 1, 1)
DAYS = [FIRST + timedelta(days=offset) for offset in range(4)]


def _rows(days, value="a"):
    return pa.table(
        {
            "partition_on": pa.array([day for day in days for _ in range(2)], pa.date32()),
            "n": pa.array([0, 1] * len(days), pa.int64()),
            "value": pa.array([value] * 2 * len(days), pa.string()),
        }
    )


@pytest.fixture
def table(tmp_path):
    uri = str(tmp_path / "table")
    lake.replace_partition(uri, _rows(DAYS), "partition_on", DAYS)
    return uri


@pytest.mark.parametrize(
    ("filters", "n"),
    [
        (None, 8),
        ([("partition_on", "=", DAYS[1])], 2),
        ([("partition_on", ">=", DAYS[1]), ("partition_on", "<", DAYS[3])], 4),
        ([("partition_on", "in", [DAYS[0], DAYS[3]])], 4),
        ([("partition_on", ">", DAYS[1]), ("n", "=", 1)], 2),
        ([("n", ">", 5)], 0),
        ([("partition_on", "=", date(2030, 1, 1))], 0),
    ],
)
def test_filters_on_partitions_and_columns_keep_the_right_rows(table, filters, n):
    assert lake.read(table, filters=filters).num_rows == n
    assert lake.read(table, filters=filters, columns=["value"]).column_names == ["value"]


def test_a_partition_is_replaced_and_the_others_stay(table):
    lake.replace_partition(table, _rows(DAYS[1:2], "b"), "partition_on", DAYS[1:2])
    found = lake.read(table).group_by(["partition_on", "value"]).aggregate([("n", "count")]).to_pylist()
    assert {(one["partition_on"], one["value"]) for one in found} == {
        (DAYS[0], "a"),
        (DAYS[1], "b"),
        (DAYS[2], "a"),
        (DAYS[3], "a"),
    }
    lake.replace_partition(table, _rows([]), "partition_on", DAYS[:2])
    assert set(lake.read(table)["partition_on"].to_pylist()) == set(DAYS[2:])


def test_a_long_range_is_replaced_as_a_range(tmp_path):
    many = [FIRST + timedelta(days=offset) for offset in range(60)]
    uri = str(tmp_path / "long")
    lake.replace_partition(uri, _rows(many), "partition_on", many)
    lake.replace_partition(uri, _rows(many[:3], "b"), "partition_on", many[:-1])
    assert sorted(set(lake.read(uri)["partition_on"].to_pylist())) == [*many[:3], many[-1]]


def test_rows_of_another_partition_are_refused(table):
    with pytest.raises(Exception, match=r"partition_on"):
        lake.replace_partition(table, _rows(DAYS[2:3], "b"), "partition_on", DAYS[1:2])


def test_a_table_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no table"):
        lake.read(str(tmp_path / "nothing"))
