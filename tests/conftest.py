"""Fixtures that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import write_reviews


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A CSV of 600 reviews, 30 % of the labels flipped."""
    path = tmp_path / "reviews.csv"
    write_reviews(path)
    return path
