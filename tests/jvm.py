"""The JVM behind Spark's sessions."""

from pyspark import SparkContext


def end() -> None:
    """End the JVM that stopped sessions of this process left: the next one has a class path of its own, with Delta."""
    gateway = SparkContext._gateway
    if gateway is None:
        return
    gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None
    process = getattr(gateway, "proc", None)
    if process is not None:
        # It ends with its stdin.
        process.stdin.close()
        process.wait(30)
