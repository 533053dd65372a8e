"""Use case churn: who will not order again within the horizon."""
