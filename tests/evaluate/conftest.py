"""Shared by the tests of evaluations: tables of scores in a folder of results."""

from __future__ import annotations

import functools

import pytest

from scored_tables import write_tables


@pytest.fixture
def write_results(tmp_path):
    """Write scored tables of a model for some dimensions into one results folder."""
    return functools.partial(write_tables, tmp_path / "results")
