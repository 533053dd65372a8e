"""The demo marketplace: a seeded generator of source systems. See docs/demo-marketplace.md."""

from include.demo.marketplace import Filled, Marketplace, fill, generate
from include.demo.sizes import FULL, SMALL, ShopSizes, Sizes

__all__ = ["FULL", "SMALL", "Filled", "Marketplace", "ShopSizes", "Sizes", "fill", "generate"]
