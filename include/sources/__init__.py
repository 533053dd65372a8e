"""One YAML file per source; read by ``include.ingest.sources``."""
