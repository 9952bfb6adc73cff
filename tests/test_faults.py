"""Kills at random moments, as `benchmarks/faults.py` makes them, in small numbers."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked"),
]


def test_fits_killed_at_random_moments_end_the_same():
    import faults

    rows = []
    cases = [case for case in faults.fit_cases(max_epochs=8) if "two networks" in case.name][:2]
    assert faults.kill_all(cases, 6, rows.append) == {"identical": 6}
    assert len(rows) == 6


def test_full_disk_read_only_folder_half_written_file_and_lock_lose_nothing():
    import faults

    outcomes = dict(faults.faults(faults.fit_cases(max_epochs=40)[0]))
    assert outcomes.keys() == faults.FAULTS.keys()
    for outcome in outcomes.values():
        assert outcome.endswith("then identical")
        assert "LOST" not in outcome
    assert "OSError" in outcomes["full disk"]
    assert "CheckpointError" in outcomes["folder in use"]
