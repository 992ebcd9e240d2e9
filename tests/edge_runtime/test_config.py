"""Configuration: defaults < file < environment < flag, and nothing is taken that cannot be used."""

from __future__ import annotations

import ast
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from edge_runtime.config import FILE_NAME, PREFIX, Config, load_config
from edge_runtime.errors import InputError, StorageError

ROOM = Path(__file__).resolve().parents[2] / "edge_runtime"


def test_without_anything_the_defaults_count() -> None:
    config = load_config({}, {})
    assert config == Config()
    assert config.home == Path.home() / ".stella-edge"
    with pytest.raises(FrozenInstanceError):
        config.batch_records = 1  # type: ignore[misc]


def test_each_layer_wins_over_the_one_before(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(
        "sync_interval_seconds = 1\nupload_interval_seconds = 1\nbatch_records = 1\nallow_insecure_http = true\n"
    )
    environment = {PREFIX + "UPLOAD_INTERVAL_SECONDS": "2", PREFIX + "BATCH_RECORDS": "2"}
    config = load_config({"home": str(tmp_path), "batch_records": "3", "ca_file": None}, environment)
    assert (config.sync_interval_seconds, config.upload_interval_seconds, config.batch_records) == (1.0, 2.0, 3)
    assert config.allow_insecure_http is True
    assert config.ca_file is None


def test_the_home_of_the_environment_is_where_the_file_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("log_level = 'debug'\n")
    assert load_config({}, {PREFIX + "HOME": str(tmp_path)}).log_level == "debug"


@pytest.mark.parametrize("source", ["flag", "environment"])
def test_a_named_file_must_be_there(tmp_path: Path, source: str) -> None:
    path = str(tmp_path / "none.toml")
    with pytest.raises(StorageError, match=r"none\.toml"):
        load_config({"config": path} if source == "flag" else {}, {PREFIX + "CONFIG": path} if source != "flag" else {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allow_insecure_http", "maybe"),
        ("refuse_below_goals", "sometimes"),
        ("batch_records", "0"),
        ("batch_records", "2.5"),
        ("sync_interval_seconds", "-1"),
        ("sync_interval_seconds", "nan"),
        ("sync_interval_seconds", "inf"),
        ("sync_interval_seconds", "soon"),
        ("log_level", "loud"),
        ("home", ""),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        load_config({}, {PREFIX + name.upper(): value})
    assert repr(value) in caught.value.message
    assert caught.value.advice


@pytest.mark.parametrize("text", ["speed = 3", "[server]\nurl = 'x'", "home = ", "\udcff"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"settings\.toml"):
        load_config({"config": str(path)}, {})


def test_every_setting_says_what_it_is() -> None:
    for setting in fields(Config):
        assert len(setting.metadata["help"]) > 15, setting.name


def test_only_the_entry_point_reads_the_environment() -> None:
    readers = []
    for path in ROOM.rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        if names & {"environ", "getenv"}:
            readers.append(path.name)
    assert readers == ["options.py"]
