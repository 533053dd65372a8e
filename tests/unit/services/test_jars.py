"""The Delta jars: only what the committed checksums say is ever used."""

import hashlib
from pathlib import Path

import pytest

from include.services import jars

GOOD = {"a-1.jar": b"alpha", "b-2.jar": b"beta"}


@pytest.fixture
def listed(home, tmp_path, monkeypatch) -> Path:
    """A list of two jars in place of the committed one; returns the folder they belong in."""
    sums = tmp_path / "jars.sha256"
    sums.write_text("".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in GOOD.items()))
    monkeypatch.setattr(jars, "SUMS_FILE", sums)
    return home / "jars"


def deliver(files: dict[str, bytes], calls: list[Path]):
    def retrieve(cache: Path, target: Path) -> None:
        calls.append(target)
        target.mkdir(parents=True)
        for name, data in files.items():
            (target / name).write_bytes(data)

    return retrieve


def test_fetch_brings_every_jar_and_the_second_call_fetches_nothing(listed, monkeypatch):
    calls: list[Path] = []
    monkeypatch.setattr(jars, "_retrieve", deliver(GOOD, calls))
    assert jars.fetch() == listed
    assert {path.name: path.read_bytes() for path in listed.iterdir()} == GOOD
    jars.fetch()
    assert len(calls) == 1


def test_a_wrong_checksum_names_the_jar_and_keeps_nothing(listed, monkeypatch):
    monkeypatch.setattr(jars, "_retrieve", deliver(GOOD | {"b-2.jar": b"tampered"}, []))
    with pytest.raises(RuntimeError, match=r"b-2\.jar") as error:
        jars.fetch()
    assert "a-1.jar" not in str(error.value)
    assert list(listed.glob("*.jar")) == []


def test_a_damaged_jar_is_replaced_and_other_files_stay(listed, monkeypatch):
    listed.mkdir(parents=True)
    (listed / "a-1.jar").write_bytes(b"half")
    (listed / "extra.jar").write_bytes(b"mine")
    monkeypatch.setattr(jars, "_retrieve", deliver(GOOD, []))
    jars.fetch()
    assert (listed / "a-1.jar").read_bytes() == b"alpha"
    assert (listed / "extra.jar").read_bytes() == b"mine"
    assert not [path for path in listed.iterdir() if path.is_dir()]


def test_a_jar_that_does_not_arrive_is_named(listed, monkeypatch):
    monkeypatch.setattr(jars, "_retrieve", deliver({"a-1.jar": b"alpha"}, []))
    with pytest.raises(RuntimeError, match=r"b-2\.jar"):
        jars.fetch()


def test_every_listed_jar_is_in_the_ivy_file_and_the_other_way_round():
    from xml.etree import ElementTree

    wanted = {f"{d.get('name')}-{d.get('rev')}.jar" for d in ElementTree.parse(jars.IVY_FILE).iter("dependency")}
    assert wanted == set(jars.checksums())
    assert len(wanted) >= 3
