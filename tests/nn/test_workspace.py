"""Buffers that are lent and taken back."""

import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sk_momkd.nn.workspace import GradientMemory, Workspace


def test_workspace_lends_no_memory_twice_and_reuses_what_came_back():
    workspace = Workspace()
    a = workspace.take((4, 4), torch.float32)
    b = workspace.take((2, 2), torch.float32)
    assert a.data_ptr() != b.data_ptr()
    workspace.give(a)
    assert workspace.take((2, 8), torch.float32).data_ptr() == a.data_ptr()
    workspace.give(b)
    larger = workspace.take((100, 10), torch.bfloat16)
    assert larger.shape == (100, 10)
    assert larger.dtype == torch.bfloat16
    assert pickle.loads(pickle.dumps(workspace))._free == []
    with pytest.raises(KeyError):
        workspace.give(a, a)


def test_workspace_shared_by_threads_lends_no_memory_twice():
    workspace = Workspace()

    def work(number):
        for _ in range(1000):
            buffer = workspace.take((8,), torch.float32)
            buffer.fill_(number)
            time.sleep(0)  # the others' turn
            assert (buffer == number).all()
            workspace.give(buffer)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(before)


def test_gradient_memory_is_lent_again_only_when_nothing_refers_to_it():
    memory, like = GradientMemory(), torch.empty(1)
    weight = torch.zeros(3, 4, requires_grad=True)
    lent = memory.take((3, 4), like)
    where = lent.data_ptr()
    weight.grad = lent.detach()
    del lent
    assert memory.take((3, 4), like).data_ptr() != where  # the parameter has it
    kept = weight.grad.view(-1)[2:]
    weight.grad = None
    assert memory.take((3, 4), like).data_ptr() != where  # somebody keeps a view of it
    del kept
    assert memory.take((3, 4), like).data_ptr() == where
    assert memory.take((4, 3), like).data_ptr() != where
    assert pickle.loads(pickle.dumps(memory))._arrays == {}


def test_gradient_memory_for_other_types_and_devices_is_new():
    for like in (torch.empty(1, dtype=torch.float64), torch.empty(1, device="meta")):
        taken = GradientMemory().take((2, 3), like)
        assert (taken.dtype, taken.device, taken.shape) == (like.dtype, like.device, (2, 3))
