import numpy as np
import pytest
import torch

from sk_momkd.inspection.integrated_gradients import mean_gradient


def test_mean_gradient_of_a_linear_function_is_its_weights():
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    found = mean_gradient(lambda x: x @ weight.T, torch.zeros(5), torch.ones(5), n_steps=1)
    torch.testing.assert_close(found, weight)


@pytest.mark.parametrize("degree", [2, 3, 7])
def test_mean_gradient_of_a_polynomial_is_exact_from_half_its_degree(degree):
    start, end = torch.tensor([0.5, -1.0]).double(), torch.tensor([2.0, 1.0]).double()

    def power(x):
        return (x**degree).sum(dim=1, keepdim=True)

    found = mean_gradient(power, start, end, n_steps=(degree + 1) // 2)
    # By hand: the integral of d t^(d - 1) from a to b, over b - a.
    expected = (end**degree - start**degree) / (end - start)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


def test_mean_gradient_sums_to_the_difference_of_a_function_with_kinks():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(50, n, generator=generator).double() for n in (8, 2))

    def network(x):
        return (x.flatten(1) @ first.T).relu() @ second

    start, end = torch.zeros(2, 4).double(), torch.randn(2, 4, generator=generator).double()
    start += 0.3
    gradient = mean_gradient(network, start, end, n_steps=1000)
    change = (network(end[None]) - network(start[None]))[0]
    found = (gradient * (end - start)).sum(dim=(1, 2))
    np.testing.assert_allclose(found, change, atol=1e-2 * float(change.abs().max()))


def test_mean_gradient_in_parts_is_that_of_all_points_at_once(monkeypatch):
    def cubes(x):
        return (x**3).sum(dim=1, keepdim=True)

    start, end = torch.zeros(4), torch.ones(4)
    at_once = mean_gradient(cubes, start, end, n_steps=8)
    monkeypatch.setattr("sk_momkd.inspection.integrated_gradients._VALUES_AT_ONCE", 8)
    torch.testing.assert_close(mean_gradient(cubes, start, end, n_steps=8), at_once)


def test_mean_gradient_works_where_gradients_are_switched_off():
    with torch.no_grad():
        found = mean_gradient(lambda x: x[:, :1] * 2, torch.zeros(1), torch.ones(1), n_steps=1)
    assert found.tolist() == [[2.0]]
