"""Gates between layers: suites as code, run by Great Expectations, verdicts in ``ops.quality_result``."""
