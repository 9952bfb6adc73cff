"""What every histology-only model owes: equal seeds, independent bags, bags of any size."""

import pytest
import torch
from mil_models import BUILD, build, call, features, terms_of

from sk_momkd.nn.dropout import Stochastic, set_dropout_generator
from sk_momkd.nn.initialization import initialise
from sk_momkd.training.config import weighted_total

NAMES = sorted(BUILD)


def drawn(name, seed):
    """Parameters after `initialise`, which has to overwrite every one."""
    model = BUILD[name](3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    initialise(model, torch.Generator().manual_seed(seed))
    return dict(model.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_initialise_equal_seeds_give_equal_weights_and_others_differ(name):
    torch.manual_seed(0)
    one, same, other = drawn(name, 1), drawn(name, 1), drawn(name, 2)
    for key, parameter in one.items():
        assert parameter.isfinite().all(), key
        assert torch.equal(parameter, same[key]), key
        constant = bool(((parameter == 0) | (parameter == 1)).all())
        assert torch.equal(parameter, other[key]) == constant, key
        assert not constant or parameter.dim() == 1, key


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_forward_batch_of_bags_equals_bags_alone(name, n_classes):
    bags = [features(n, seed=i) for i, n in enumerate((1, 7, 2, 20, 7))]
    y = torch.tensor([0, 1, n_classes - 1, 0, 1])
    model = build(name, n_classes)
    together = call(model, *bags)
    terms = terms_of(name)(together, y)
    weighted_total(terms, dict.fromkeys(terms, 1.0)).backward()
    gradients = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}

    model.zero_grad(set_to_none=True)
    alone = [call(model, bag) for bag in bags]
    for b, output in enumerate(alone):
        terms = terms_of(name)(output, y[b : b + 1])
        (sum(term.sum() for term in terms.values()) / len(bags)).backward()
    tight = {"atol": 1e-10, "rtol": 1e-10}
    torch.testing.assert_close(torch.cat([o.logits for o in alone]), together.logits, **tight)
    torch.testing.assert_close(torch.cat([o.attention for o in alone]), together.attention, **tight)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients.get(key), **tight)
    assert gradients


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 9, 17])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_forward_small_bags_are_finite_and_attention_sums_to_one(name, n, n_classes):
    model = build(name, n_classes)
    for module in (model, model.train()):
        output = call(module, features(n), y=torch.tensor([1]))
        assert output.logits.shape == (1, n_classes)
        assert output.logits.isfinite().all()
        assert (output.attention >= 0).all()
        sums = output.attention.sum(dim=0)
        assert output.attention.shape == (n, n_classes if name.startswith("dsmil") else 1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
        terms = terms_of(name)(output, torch.tensor([1]))
        assert all(term.shape == (1,) and term.isfinite().all() for term in terms.values())


@pytest.mark.parametrize("name", NAMES)
def test_forward_permuted_patches_matter_where_order_is_part_of_the_method(name):
    x, model = features(9), build(name)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    plain, permuted = call(model, x), call(model, x[order])
    invariant = not name.startswith(("transmil", "dtfd"))
    assert torch.allclose(permuted.logits, plain.logits, atol=1e-10) == invariant
    assert torch.allclose(permuted.attention, plain.attention[order], atol=1e-10) == invariant


@pytest.mark.parametrize("name", NAMES)
def test_training_draws_from_its_generator_and_leaves_the_global_one_alone(name):
    model = build(name).train()
    x, before = [features(9), features(6, seed=2)], torch.get_rng_state()
    results = []
    for seed in (0, 0, 1):
        set_dropout_generator(model, torch.Generator().manual_seed(seed))
        results.append(call(model, *x).logits)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(results[0], results[1])
    draws = any(getattr(m, "p", 1) > 0 for m in model.modules() if isinstance(m, Stochastic))
    assert torch.equal(results[0], results[2]) != draws
    model.eval()
    assert torch.equal(call(model, *x).logits, call(model, *x).logits)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_used(name):
    model, x = build(name, 3), features(9)
    output = call(model, x)
    terms = terms_of(name)(output, torch.tensor([2]))
    sum(term.sum() for term in terms.values()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key


@pytest.mark.parametrize("name", NAMES)
def test_output_float32_model_stays_float32(name):
    output = call(build(name).float(), features(5).float())
    assert output.logits.dtype == output.attention.dtype == torch.float32
