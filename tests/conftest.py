"""Fixtures that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import write_reviews


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A CSV of 600 reviews, 30 % of the labels flipped."""
    path = tmp_path / "reviews.csv"
    write_reviews(path)
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: tiny networks are quicker so, and their numbers do not hang on the machine's cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
