"""Use case demand_category: units per category and day."""
