"""Which version of a key held as of which cutoff, where keys are removed and come back."""

from datetime import timedelta

import pytest
from pyspark.sql import SparkSession

from spark_jobs.versions import PRODUCT, with_cutoffs
from tests.integration.spark_jobs.world import START, frames, product

pytestmark = pytest.mark.integration


def test_a_removed_key_is_there_before_its_removal_was_known_and_not_after_until_it_comes_back(
    spark: SparkSession,
) -> None:
    days = [START + timedelta(days=n) for n in range(6)]
    versions = [
        product("tea", days[0], category="drinks"),
        product("tea", days[2], category="drinks", is_deleted=True),
        product("tea", days[4], category="teas"),
        # Removed before anything else was known of it.
        product("ghost", days[1], category=None, is_deleted=True),
        # An old deletion that arrives after a newer version has nothing to end.
        product("cup", days[1], category="cups"),
        product("cup", days[3], category="cups", is_deleted=True) | {"known_at": product("cup", days[0])["known_at"]},
    ]
    held = with_cutoffs(frames(spark, products=versions)["products"], PRODUCT, days)
    found = {
        (row["product_id"], cutoff): row["category"]
        for row in held.collect()
        for cutoff in range(row["first_cutoff"], row["last_cutoff"] + 1)
    }
    tea = {("tea", 0): "drinks", ("tea", 1): "drinks", ("tea", 4): "teas", ("tea", 5): "teas"}
    assert found == tea | {("cup", at): "cups" for at in range(1, 6)}
