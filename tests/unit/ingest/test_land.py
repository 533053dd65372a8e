"""How a landing is cut, without a database."""

from datetime import date

from include.ingest.land import _cut


def test_a_range_is_cut_behind_a_newest_snapshot_that_it_overlaps():
    def day(n):
        return date(2025, 3, n)

    assert list(_cut(day(8), day(12), [day(10)])) == [(day(8), day(10)), (day(11), day(12))]
    assert list(_cut(day(8), day(12), [day(11), day(9), day(9)])) == [
        (day(8), day(9)), (day(10), day(11)), (day(12), day(12)),
    ]  # fmt: skip
    for newest in ([], [day(8)], [day(12)], [day(20)], [day(1)]):
        assert list(_cut(day(8), day(12), newest)) == [(day(8), day(12))]
