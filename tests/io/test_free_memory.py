"""Free memory by machine and control group."""

from types import SimpleNamespace

import pytest

from sk_momkd.io import free_memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 64 GiB free; writes the files of control groups."""

    def write(of_process, **folders):
        (tmp_path / "self").write_text(of_process)
        for folder, content in folders.items():
            place = tmp_path / "groups" / folder.replace("__", "/")
            place.mkdir(parents=True, exist_ok=True)
            for name, text in content.items():
                (place / name).write_text(text)
        return free_memory.free_memory() / GIB

    monkeypatch.setattr(free_memory, "_OF_PROCESS", tmp_path / "self")
    monkeypatch.setattr(free_memory, "_CGROUPS", tmp_path / "groups")
    available = SimpleNamespace(available=64 * GIB)
    monkeypatch.setattr(free_memory.psutil, "virtual_memory", lambda: available)
    return write


def v2(limit, used, cached=0):
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used * GIB}\n",
        "memory.stat": f"anon 5\ninactive_file {cached * GIB}\n",
    }


def test_group_of_version_two_limits_also_from_above(machine):
    job = v2("max", 3)
    assert machine("0::/slurm/job7\n", slurm=v2(16 * GIB, 9, 4), slurm__job7=job) == 11
    assert machine("0::/slurm/job7\n", slurm__job7=v2(8 * GIB, 6)) == 2
    assert machine("0::/slurm/job7\n", slurm__job7=v2(8 * GIB, 9)) == 0


def test_group_of_version_one(machine):
    content = {
        "memory.limit_in_bytes": f"{4 * GIB}",
        "memory.usage_in_bytes": f"{2 * GIB}",
        "memory.stat": f"cache 1\ntotal_inactive_file {GIB}\n",
    }
    lines = "5:cpu,cpuacct:/a\n4:memory:/docker/77\n"
    # In a container the path is that of the host, and what is mounted is the group itself.
    assert machine(lines, memory=content) == 3


@pytest.mark.parametrize("of_process", ["0::/\n", "0::/gone\n", ""])
def test_without_a_limit_it_is_that_of_the_machine(machine, of_process):
    assert machine(of_process) == 64


def test_without_control_groups_it_is_that_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(free_memory, "_OF_PROCESS", tmp_path / "absent")
    available = free_memory.psutil.virtual_memory().available
    assert free_memory.free_memory() == pytest.approx(available, rel=0.3)


def test_worker_takes_its_part(machine, monkeypatch):
    machine("0::/\n")
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert free_memory.bytes_for_features() == 32 * GIB
    monkeypatch.setattr(free_memory.multiprocessing, "parent_process", lambda: object())
    assert free_memory.bytes_for_features() == 8 * GIB
