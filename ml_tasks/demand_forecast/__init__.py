"""Use case demand_forecast: units per SKU and day, with quantiles."""
