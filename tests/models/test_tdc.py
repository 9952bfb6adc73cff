"""TDC: sizes, gradient routes and the two stages; its reference values stand with the losses."""

import pickle

import pytest
import torch
from torch import tensor

from sk_momkd.losses.tdc import tdc_teacher_terms, tdc_terms
from sk_momkd.models.tdc import TDC, BagNorm, TDCTeacher
from sk_momkd.nn.dropout import set_dropout_generator
from sk_momkd.nn.initialization import initialise
from sk_momkd.training.config import weighted_total

NO_EDGES = torch.empty(2, 0, dtype=torch.long)
FIRST = dict.fromkeys([f"{t}_{h}" for t in ("ce", "kl") for h in ("path", "omics", "fused")], 1.0)
FIRST |= {"kl_masked": 1.0, "l1": 3e-4}
SECOND = {"ce": 1.0, "kl_average": 1.0, "kl_teacher": 1.0, "crd_average": 0.05, "crd_teacher": 0.05}


def bags(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 5, generator=generator) for n in sizes]


def genes(n):
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(2))


def run(model, xs, **known):
    batch = torch.arange(len(xs)).repeat_interleave(tensor([len(x) for x in xs]))
    return model(torch.cat(xs), NO_EDGES, batch, len(xs), **known)


def first_stage(n_classes=2, **settings):
    settings = {"dim": 4, "attention_dim": 3, "omics_hidden_dims": (6,)} | settings
    model = TDCTeacher(5, 7, n_classes, **settings)
    initialise(model, torch.Generator().manual_seed(0))
    model.update_average()
    set_dropout_generator(model, torch.Generator().manual_seed(4))
    return model.train()


def second_stage(n_classes=2, n_genes=7, n_train=6, **settings):
    settings = {"dim": 4, "attention_dim": 3, "n_negatives": 8} | settings
    model = TDC(5, n_genes, n_classes, **settings)
    initialise(model, torch.Generator().manual_seed(0))
    teacher = first_stage(n_classes).net if n_genes else None
    labels, paired = torch.arange(n_train) % n_classes, torch.arange(n_train) != 1
    model.begin(labels, paired, teacher, torch.Generator().manual_seed(3))
    model.update_average()
    set_dropout_generator(model, torch.Generator().manual_seed(4))
    return model.train()


def has_gradient(part):
    return any(p.grad is not None for p in part.parameters())


def test_parameter_counts_at_1536_features():
    teacher = TDCTeacher(1536, 768, 2)
    assert sum(p.numel() for p in teacher.net.parameters()) == 6_696_599
    student = TDC(1536, 768, 2).student
    assert sum(p.numel() for p in student.parameters()) == 230_147


@pytest.mark.parametrize("make", [first_stage, second_stage])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_batch_of_bags_equals_bags_alone(make, n_classes):
    model, xs = make(n_classes).eval(), bags(1, 4, 2)
    known = {"omics": genes(2), "paired": tensor([True, False, True])}
    known = known if make is first_stage else {}
    together = run(model, xs, **known)
    attention = together.attention.split([1, 4, 2])
    for b, x in enumerate(xs):
        alone = {"omics": genes(2)[b // 2 :][:1], "paired": tensor([True])}
        alone = run(model, [x], **(alone if known and b != 1 else {}))
        torch.testing.assert_close(alone.logits[0], together.logits[b])
        torch.testing.assert_close(alone.attention, attention[b])


@pytest.mark.parametrize("n", [1, 2, 4, 8, 9])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_small_bags_are_finite_in_both_stages(n, n_classes):
    teacher, xs, y = first_stage(n_classes), bags(n, n), tensor([0, 1])
    teacher.masking = True
    known = {"y": y, "omics": genes(2), "paired": tensor([True, True])}
    terms = tdc_teacher_terms(run(teacher, xs, **known), y)
    assert weighted_total(terms, FIRST).isfinite()
    student = second_stage(n_classes)
    output = run(student, xs, index=tensor([2, 4]), **known)
    assert weighted_total(tdc_terms(output, y), SECOND).isfinite()
    torch.testing.assert_close(output.attention.sum(dim=0), tensor([2.0]))


def test_first_stage_logits_are_fused_where_paired_else_path():
    model, xs = first_stage().eval(), bags(3, 4)
    output = run(model, xs, omics=genes(1), paired=tensor([False, True]))
    assert torch.equal(output.logits[0], output.heads.path[0])
    assert torch.equal(output.logits[1], output.heads.fused[0])
    assert output.average is None
    alone = run(model, xs)
    assert torch.equal(alone.logits, output.heads.path)
    assert tdc_teacher_terms(alone, tensor([0, 1])).keys() == {"ce_path", "l1"}


def test_first_stage_masks_need_masking_labels_and_omics():
    model, xs, y = first_stage(), bags(3, 4), tensor([0, 1])
    known = {"omics": genes(1), "paired": tensor([False, True])}
    assert run(model, xs, y=y, **known).masked == ()
    model.masking = True
    assert run(model, xs, **known).masked == ()
    masked = run(model, xs, y=y, **known).masked
    assert [logits.shape for logits in masked] == [(1, 2), (1, 2)]
    none = run(model, xs, y=y, omics=torch.empty(0, 7), paired=tensor([False, False]))
    assert none.masked == ()
    assert tdc_teacher_terms(none, y).keys() == {"ce_path", "kl_path", "l1"}
    assert run(model.eval(), xs, y=y, **known).masked == ()


def test_first_stage_masks_hit_what_raises_the_loss_most():
    model, xs, y = first_stage(dropout=0, omics_dropout=0), bags(9), tensor([1])
    x, batch, omics = xs[0], torch.zeros(9, dtype=torch.long), genes(1)
    by_patch, by_gene = model._slopes(x, batch, omics, y)
    assert model.net.training
    assert not has_gradient(model)
    without_patches, without_genes = model._masked(x, batch, omics, y)
    kept, fewer = x.clone(), omics.clone()
    kept[by_patch.argmax()] = 0
    fewer[0, by_gene[0].argmax()] = 0
    torch.testing.assert_close(without_patches, model.net.fuse(kept, batch, omics)[1])
    torch.testing.assert_close(without_genes, model.net.fuse(x, batch, fewer)[1])


def test_first_stage_trains_the_network_and_never_its_average():
    model, xs, y = first_stage(), bags(3, 4, 5), tensor([0, 1, 1])
    model.masking = True
    output = run(model, xs, y=y, omics=genes(2), paired=tensor([True, False, True]))
    terms = tdc_teacher_terms(output, y)
    assert terms.keys() == FIRST.keys()
    assert [len(terms[k]) for k in ("ce_path", "ce_fused", "kl_masked", "l1")] == [3, 2, 2, 1]
    weighted_total(terms, FIRST).backward()
    assert all(p.grad is not None for p in model.net.parameters())
    assert not has_gradient(model.average)


def test_first_stage_views_differ_between_network_and_average():
    model, xs = first_stage(dropout=0, omics_dropout=0), bags(10)
    output = run(model, xs)
    assert len(output.batch) == len(output.attention) == 8
    assert not torch.allclose(output.heads.path, output.average.path)
    assert len(run(model.eval(), xs).batch) == 10


def test_norm_over_one_bag_uses_running_statistics():
    norm = BagNorm(2).train()
    x = tensor([[3.0, 5.0]])
    torch.testing.assert_close(norm(x), x, atol=1e-4, rtol=0)
    assert norm(torch.cat([x, -x])).mean(dim=0).tolist() == pytest.approx([0, 0])
    assert norm.running_var[0] > 1


def train_pass(model, xs, paired=(True, True, True), index=(0, 2, 3)):
    paired = tensor(paired)
    known = {"omics": genes(int(paired.sum())), "paired": paired, "index": tensor(index)}
    return run(model, xs, **known)


def test_second_stage_trains_student_and_heads_and_never_the_teachers():
    model, y = second_stage(), tensor([0, 0, 1])
    terms = tdc_terms(train_pass(model, bags(3, 4, 5)), y)
    assert terms.keys() == SECOND.keys()
    branch = model.omics_branch
    before = pickle.dumps([branch.teacher.state_dict(), branch.average.state_dict()])
    weighted_total(terms, SECOND).backward()
    assert all(p.grad is not None for p in model.student.parameters())
    for memory in (branch.average_memory, branch.teacher_memory):
        assert all(p.grad is not None for p in memory.parameters())
    assert not has_gradient(branch.teacher)
    assert not has_gradient(branch.average)
    assert not any(p.requires_grad for p in branch.teacher.parameters())
    assert pickle.dumps([branch.teacher.state_dict(), branch.average.state_dict()]) == before


def test_second_stage_terms_carry_their_votes():
    model, y = second_stage(), tensor([0, 0, 1])
    output = train_pass(model, bags(3, 4, 5))
    plain = tdc_terms(output, y, threshold=-1.1)  # every term agrees with every term
    voted = tdc_terms(output, y)
    for name in SECOND.keys() - {"ce"}:
        ratio = 5 * voted[name] / plain[name]
        torch.testing.assert_close(ratio, ratio.round(), atol=1e-4, rtol=0)
        assert ratio.min() > 0.5  # itself
    torch.testing.assert_close(voted["ce"], plain["ce"])


def test_second_stage_bags_without_omics_hear_the_average_alone():
    model, y = second_stage(), tensor([0, 0, 1])
    output = train_pass(model, bags(3, 4, 5), (True, False, True), (0, 1, 3))
    assert output.targets["teacher"].bags.tolist() == [0, 2]
    assert output.targets["teacher"].n_rows == 5
    assert output.targets["average"].n_rows == 6
    for contrast in output.targets["teacher"].contrasts:
        assert not (contrast.rows[contrast.similarity.shape[1] :] == 1).any()
    terms = tdc_terms(output, y)
    assert [len(terms[k]) for k in ("ce", "kl_average", "crd_teacher")] == [3, 3, 2]
    none = train_pass(model, bags(3, 4), (False, False), (1, 1))
    assert tdc_terms(none, y[:2]).keys() == {"ce", "kl_average", "crd_average"}


def test_second_stage_without_genes_has_one_teacher():
    model = second_stage(n_genes=0)
    output = run(model, bags(3, 4), index=tensor([0, 1]))
    assert output.targets.keys() == {"average"}
    assert weighted_total(tdc_terms(output, tensor([0, 1])), SECOND).isfinite()


def test_second_stage_batch_of_one_bag_works():
    output = train_pass(second_stage(), bags(3), (True,), (4,))
    assert weighted_total(tdc_terms(output, tensor([0])), SECOND).isfinite()


def test_second_stage_moves_banks_of_the_batch_only_while_training():
    model = second_stage()
    memory = model.omics_branch.teacher_memory
    before = memory.student_bank
    output = train_pass(model, bags(3, 4, 5))
    assert output.targets["teacher"].contrasts[1].bank is before
    moved = (memory.student_bank != before).any(dim=1)
    assert moved.nonzero().squeeze(1).tolist() == [0, 2, 3]
    after = memory.student_bank
    assert train_pass(model.eval(), bags(3, 4, 5)).targets == {}
    assert memory.student_bank is after


@pytest.mark.parametrize("teacher_eval", [True, False])
def test_teachers_follow_train_mode_only_where_asked(teacher_eval):
    model = second_stage(teacher_eval=teacher_eval)
    branch = model.omics_branch
    assert branch.teacher.training is not teacher_eval
    assert branch.average.training is not teacher_eval
    assert model.student.training
    model.eval()
    assert not branch.teacher.training


def test_without_omics_branch_prediction_is_the_same_and_can_be_pickled():
    model, xs = second_stage(), bags(4, 3)
    before = run(model.eval(), xs).logits
    del model.omics_branch
    set_dropout_generator(model, None)
    model = pickle.loads(pickle.dumps(model))
    assert torch.equal(run(model, xs).logits, before)
    assert {name.split(".")[0] for name in model.state_dict()} == {"student"}


def test_training_draws_from_the_given_generator_alone():
    draws, y = [], tensor([0, 0, 1])
    for _ in range(2):
        first, second = first_stage(), second_stage()
        first.masking = True
        state = torch.get_rng_state()
        output = run(first, bags(3, 4, 5), y=y, omics=genes(3), paired=tensor([True] * 3))
        losses = weighted_total(tdc_teacher_terms(output, y), FIRST)
        losses = losses + weighted_total(tdc_terms(train_pass(second, bags(3, 4, 5)), y), SECOND)
        assert torch.equal(torch.get_rng_state(), state)
        draws.append(losses)
    assert torch.equal(*draws)


def test_initialise_draws_path_omics_and_fusion_normal():
    model = TDCTeacher(100, 7, 2, dim=16)
    initialise(model, torch.Generator().manual_seed(0))
    assert model.net.path.fc.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert not model.net.fusion.compress.bias.any()
    assert model.net.fusion.product.first.gate.weight.abs().max().item() <= 16**-0.5
    assert torch.equal(model.net.fusion.norm1.weight, torch.ones(16))
