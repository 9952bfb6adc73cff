"""A piece of work has one taker, and outlives a dead one."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from sk_momkd.io import claims
from sk_momkd.io.claims import claimed, is_claimed


def test_work_is_taken_once_and_free_after(tmp_path):
    work = tmp_path / "work"
    with claimed(work, 60) as mine, claimed(work, 60) as other:
        assert mine
        assert not other
        assert is_claimed(work, 60)
    assert not is_claimed(work, 60)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), claimed(work, 60):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_claim_of_a_dead_process_of_this_machine_has_expired_at_once(tmp_path):
    work = tmp_path / "work"
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    owner = claims._this_process() | {"pid": int(dead.stdout)}
    (tmp_path / "work.claim1").write_text(json.dumps(owner))
    assert not is_claimed(work, 1e6)
    with claimed(work, 1e6) as mine, claimed(work, 1e6) as other:
        assert (mine, other) == (True, False)
    assert list(tmp_path.iterdir()) == []


def test_process_number_that_was_given_again_is_no_sign_of_life(tmp_path):
    owner = claims._this_process() | {"started": 1.0}
    (tmp_path / "work.claim1").write_text(json.dumps(owner))
    assert not is_claimed(tmp_path / "work", 1e6)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machine": "another", "pid": 1}'])
def test_claim_of_an_unknown_process_expires_by_its_time(content, tmp_path):
    claim = tmp_path / "work.claim1"
    claim.write_text(content)
    assert is_claimed(tmp_path / "work", 60)
    os.utime(claim, (time.time() - 100, time.time() - 100))
    assert not is_claimed(tmp_path / "work", 60)


def test_claim_is_renewed_while_the_work_goes_on(tmp_path):
    with claimed(tmp_path / "work", 0.3):
        old = time.time() - 100
        os.utime(tmp_path / "work.claim1", (old, old))
        time.sleep(0.15)
        assert os.stat(tmp_path / "work.claim1").st_mtime > old + 50


def test_expired_claim_goes_to_one_of_many(tmp_path):
    for number in range(20):
        work = tmp_path / f"work{number}"
        claim = tmp_path / f"work{number}.claim1"
        claim.write_text("{}")
        os.utime(claim, (1, 1))
        taken, ready, hold = [], threading.Barrier(4), threading.Barrier(4)

        def take(work=work, taken=taken, ready=ready, hold=hold):
            ready.wait()
            with claimed(work, 60) as mine:
                taken.append(mine)
                hold.wait()

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [False, False, False, True]
