from pathlib import Path

import pytest

from include.settings import settings
from spark_jobs import session
from spark_jobs.versions import spark_uri


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of this test alone, whatever the shell's environment says."""
    for name in ("JARS", "LAKE", "SPARK_MASTER"):
        monkeypatch.delenv(f"EMPORIUM_{name}", raising=False)
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    monkeypatch.setattr(session, "settings", lambda: settings.__wrapped__())


@pytest.fixture
def jars(tmp_path: Path) -> list[str]:
    """Two jars in a folder that the settings name; their paths."""
    folder = tmp_path / "jars"
    folder.mkdir()
    paths = [folder / name for name in ("delta-spark_4.2_2.13-4.4.0.jar", "delta-storage-4.4.0.jar")]
    for path in paths:
        path.touch()
    return [str(path) for path in paths]


def test_local_session_keeps_to_the_machine_and_the_home(jars: list[str], tmp_path: Path) -> None:
    conf = session._engine_conf("local[2]")
    assert conf["spark.driver.extraClassPath"].split(":") == jars
    assert conf["spark.driver.bindAddress"] == "127.0.0.1"
    for name in ("spark.local.dir", "spark.sql.warehouse.dir"):
        assert conf[name].startswith(str(tmp_path))
    assert "spark.jars" not in conf


def test_cluster_gets_the_jars_and_can_reach_the_driver(jars: list[str]) -> None:
    conf = session._engine_conf("spark://spark-master:7077")
    assert conf["spark.jars"].split(",") == jars
    assert "spark.driver.host" not in conf
    assert "TieredStopAtLevel" not in conf["spark.driver.extraJavaOptions"]
    assert "spark.sql.shuffle.partitions" not in conf
    assert session._engine_conf("spark://127.0.0.1:7077")["spark.driver.host"] == "127.0.0.1"


def test_missing_jars_are_one_clear_sentence() -> None:
    with pytest.raises(RuntimeError, match=r"Delta's jars are not in .*make setup"):
        session.jars()


def test_s3_lake_is_spelled_as_hadoop_does(jars: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPORIUM_LAKE", "s3://lake")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    assert spark_uri("s3://lake/core/orders") == "s3a://lake/core/orders"
    conf = session._engine_conf("spark://spark-master:7077")
    assert conf["spark.hadoop.fs.s3a.endpoint"] == "http://minio:9000"
    assert conf["spark.hadoop.fs.s3a.path.style.access"] == "true"
