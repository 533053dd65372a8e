"""From sources to raw: land (extract to bronze), gate (``expectations.raw``), load (bronze to Postgres)."""
