"""Fixtures that every room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real telemetry beside the checkout; tests that need it say so when it is missing."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not (folder / "cmapss" / "readings.parquet").is_file():
        pytest.skip("the real data sets are not beside this checkout (../shared/data)")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens",
        action="store_true",
        help="Write the golden files of the contract anew; review the difference before committing it.",
    )
