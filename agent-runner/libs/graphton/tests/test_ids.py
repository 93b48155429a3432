"""Tests the ids of tool uses that other services chose."""

import re

import pytest

from graphton.providers.ids import safe_id


@pytest.mark.parametrize("use_id", ["call_1", "toolu_01A-b", "x" * 64])
def test_a_usual_id_stays(use_id: str) -> None:
    assert safe_id(use_id) == use_id


def test_other_ids_become_usual_ones() -> None:
    others = ["", "a b", "functions.read:0", "x" * 65, "x" * 66, "ü", "\ud800"]
    safe = [safe_id(use_id) for use_id in others]
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,40}", use_id) for use_id in safe)
    assert len(set(safe)) == len(others)
    assert safe == [safe_id(use_id) for use_id in others]
