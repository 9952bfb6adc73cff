"""One process takes a piece of work, and another one if it dies."""

import json
import os
import subprocess
import sys
import threading

import pytest

from sk_momkd.io import claims
from sk_momkd.io.claims import claimed, is_claimed

LONG = 1e6  # seconds; no test takes as long


def expire(path):
    os.utime(path, (1, 1))


def test_work_is_taken_once_and_free_after(tmp_path):
    work = tmp_path / "work"
    with claimed(work, LONG) as mine, claimed(work, LONG) as other:
        assert mine
        assert not other
        assert is_claimed(work, LONG)
    assert not is_claimed(work, LONG)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), claimed(work, LONG):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_claim_of_a_dead_process_of_this_machine_has_expired_at_once(tmp_path):
    work = tmp_path / "work"
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    owner = claims._this_process() | {"pid": int(dead.stdout)}
    (tmp_path / "work.claim1").write_text(json.dumps(owner))
    assert not is_claimed(work, LONG)
    with claimed(work, LONG) as mine, claimed(work, LONG) as other:
        assert (mine, other) == (True, False)
    assert list(tmp_path.iterdir()) == []


def test_process_number_that_was_given_again_is_of_another_process(tmp_path):
    owner = claims._this_process() | {"started": 1.0}
    (tmp_path / "work.claim1").write_text(json.dumps(owner))
    assert not is_claimed(tmp_path / "work", LONG)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machine": "another", "pid": 1}'])
def test_claim_of_an_unknown_process_expires_by_its_time(content, tmp_path):
    claim = tmp_path / "work.claim1"
    claim.write_text(content)
    assert is_claimed(tmp_path / "work", LONG)
    expire(claim)
    assert not is_claimed(tmp_path / "work", LONG)


def test_claim_is_renewed_while_the_work_goes_on(tmp_path, monkeypatch):
    renewed, plain = threading.Event(), os.utime

    def noted(path, *times):
        plain(path, *times)
        renewed.set()

    monkeypatch.setattr(claims.os, "utime", noted)
    claim = tmp_path / "work.claim1"
    with claimed(tmp_path / "work", 0.06):
        plain(claim, (1, 1))
        while os.stat(claim).st_mtime == 1:
            renewed.clear()
            assert os.stat(claim).st_mtime > 1 or renewed.wait(60)


@pytest.fixture
def stopped(monkeypatch):
    """Claims are not renewed, as where a process stands still."""
    monkeypatch.setattr(claims, "_renew", lambda *of_claim: None)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("ends_first", ["the one that was expired", "the one that took over"])
def test_work_that_was_taken_over_has_one_taker_until_the_last_ends(tmp_path, ends_first):
    work = tmp_path / "work"
    slow, next_one = claimed(work, LONG), claimed(work, LONG)
    assert slow.__enter__()
    expire(tmp_path / "work.claim1")
    assert next_one.__enter__()
    if ends_first == "the one that was expired":
        slow.__exit__(None, None, None)
        with claimed(work, LONG) as third:
            assert not third
        assert is_claimed(work, LONG)
        next_one.__exit__(None, None, None)
    else:
        next_one.__exit__(None, None, None)
        with claimed(work, LONG) as third:
            assert third
            slow.__exit__(None, None, None)  # which removes no claim but its own
            assert is_claimed(work, LONG)
    assert list(tmp_path.iterdir()) == []


def test_claim_after_one_that_was_removed_since_is_given_up(tmp_path, monkeypatch):
    work, create, others = tmp_path / "work", claims.create_file, []
    (tmp_path / "work.claim1").write_text("{}")
    expire(tmp_path / "work.claim1")

    def delayed(path, content, **options):
        if path.name == "work.claim2" and not others:  # meanwhile the work ends and is taken again
            (tmp_path / "work.claim1").unlink()
            others.append(claimed(work, LONG))
            assert others[0].__enter__()
        create(path, content, **options)

    monkeypatch.setattr(claims, "create_file", delayed)
    with claimed(work, LONG) as mine:
        assert not mine
    others[0].__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_expired_claim_goes_to_one_of_many(tmp_path):
    for number in range(20):
        work = tmp_path / f"work{number}"
        claim = tmp_path / f"work{number}.claim1"
        claim.write_text("{}")
        expire(claim)
        taken, ready, hold = [], threading.Barrier(4), threading.Barrier(4)

        def take(work=work, taken=taken, ready=ready, hold=hold):
            ready.wait()
            with claimed(work, LONG) as mine:
                taken.append(mine)
                hold.wait()

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [False, False, False, True]
