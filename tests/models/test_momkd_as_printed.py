"""`preset("paper")` against an implementation that is written from the equations of the paper.

The second implementation goes slide by slide, patch by patch and row by row, in float64, and shares
no code with the package: it reads parameters by name. What the equations leave open (biases, the
details of the two graph layers, the two-layer omics networks) is as `docs/equations.md` lists.
"""

import pytest
import torch

from sk_momkd import MoMKDClassifier
from sk_momkd.nn.initialization import initialise
from sk_momkd.training.config import weighted_total

N_FEATURES, N_GENES, N_HEADS, SIZES = 5, 4, 2, (7, 4)
Y = [1, 0]  # C+ is the memory of class 1
TAU, TAU_AGG, MARGIN, BETA = 0.2, 5.0, 0.3, 20.0
WEIGHTS = {"ce": 0.5, "mse": 0.01, "align_omics": 0.05, "align_wsi": 0.2, "memory": 0.1}
SMALL = {
    "hidden_dim": 6,
    "projection_dim": 4,
    "n_components": 3,
    "network__n_heads": N_HEADS,
    "network__omics_hidden_dim": 3,
}


def linear(p, name, x):
    rows, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    return torch.stack([row @ x + b for row, b in zip(rows, bias, strict=True)])


def layer_norm(p, name, x):
    centred = x - x.mean()
    scaled = centred / (centred.square().mean() + 1e-5).sqrt()
    return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]


def elu(x):
    return torch.stack([v if v > 0 else v.exp() - 1 for v in x])


def unit(x):
    return x / x.square().sum().sqrt()


def graph_layer(p, name, xs, edges):
    """GATv2: patch i attends to those that send to it and to itself."""
    left = [linear(p, f"{name}.lin_l", x) for x in xs]
    right = [linear(p, f"{name}.lin_r", x) for x in xs]
    width = p[f"{name}.att"].shape[2]
    found = []
    for i in range(len(xs)):
        senders, heads = [j for j, to in edges if to == i] + [i], []
        for h in range(N_HEADS):
            part, a = slice(h * width, (h + 1) * width), p[f"{name}.att"][0, h]
            pairs = [left[j][part] + right[i][part] for j in senders]
            energy = [(a * torch.where(pair > 0, pair, 0.2 * pair)).sum().exp() for pair in pairs]
            messages = zip(energy, senders, strict=True)
            heads.append(sum(e * left[j][part] for e, j in messages) / sum(energy))
        found.append(torch.cat(heads) + p[f"{name}.bias"])
    return found


def patch_embeddings(p, xs, edges):
    first = [
        elu(layer_norm(p, "encoder.norm1", g)) + linear(p, "encoder.residual", x)
        for g, x in zip(graph_layer(p, "encoder.gat1", xs, edges), xs, strict=True)
    ]
    second = [
        elu(layer_norm(p, "encoder.norm2", g)) + h
        for g, h in zip(graph_layer(p, "encoder.gat2", first, edges), first, strict=True)
    ]
    return [torch.maximum(a, b) for a, b in zip(first, second, strict=True)]


def two_layers(p, name, x):
    hidden = layer_norm(p, f"{name}.1", linear(p, f"{name}.0", x))
    return linear(p, f"{name}.4", hidden.clamp(min=0))


def affinity(f, rows):
    """phi(f, C) (Eq. 3)."""
    return sum((TAU_AGG * f @ unit(c)).exp() for c in rows).log() / TAU_AGG


def alignment(f, positive, negative, y):
    """Eq. 4 and 5."""
    delta = affinity(f, positive) - affinity(f, negative)
    sign = 1 if y == 1 else -1
    return (1 + (BETA * (MARGIN - sign * delta)).exp()).log()


def memory_loss(patches, positive, negative, y):
    """Eq. 10: k* among the rows of both memories, sums over dimensions and pairs of rows."""
    total = 0.0
    for patch in patches:
        squares = [(patch - c.detach()).square().sum() for c in [*positive, *negative]]
        total = total + min(squares, key=torch.Tensor.item) / len(patches)
    own = positive if y == 1 else negative
    for i, a in enumerate(own):
        for j, b in enumerate(own):
            total = total + (unit(a) @ unit(b)).square() * (i != j)
    return total


def slide(p, xs, edges, genes, y):
    """Outputs of one slide, and its terms."""
    positive, negative = list(p["memory.rows"][1]), list(p["memory.rows"][0])
    embeddings = patch_embeddings(p, xs, edges)
    patches = [unit(linear(p, "patch_projector", f)) for f in embeddings]
    scores = []
    for patch in patches:  # Eq. 6
        near, far = ([patch @ unit(c).detach() for c in rows] for rows in (positive, negative))
        scores.append(max(near, key=torch.Tensor.item) - max(far, key=torch.Tensor.item))
    weights = [(score / TAU).exp() for score in scores]
    attention = [weight / sum(weights) for weight in weights]  # Eq. 7
    pooled = sum(a * f for a, f in zip(attention, embeddings, strict=True))  # Eq. 8
    logits = linear(p, "head", pooled)
    f_wsi = unit(linear(p, "slide_projector", pooled))  # Eq. 1
    code = two_layers(p, "omics_branch.encoder", genes)
    f_omics = unit(linear(p, "omics_branch.projector", code))  # Eq. 2
    decoded = two_layers(p, "omics_branch.decoder", code)
    outputs = {
        "logits": logits,
        "attention": torch.stack(attention)[:, None],
        "projection": torch.stack(patches),
        "slide_projection": f_wsi,
        "omics_projection": f_omics,
        "reconstruction": decoded,
    }
    terms = {
        "ce": sum(z.exp() for z in logits).log() - logits[y],
        "mse": sum((a - b) ** 2 for a, b in zip(genes, decoded, strict=True)) / len(genes),
        "align_omics": alignment(f_omics, positive, negative, y),
        "align_wsi": alignment(f_wsi, positive, negative, y),
        "memory": memory_loss(patches, positive, negative, y),
    }
    return outputs, terms


def inputs(seed):
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64)

    xs = [normal(n, N_FEATURES) for n in SIZES]
    edges = [[((i + d) % n, i) for i in range(n) for d in (1, 3)] for n in SIZES]
    return xs, edges, normal(len(SIZES), N_GENES), normal


def library(preset, seed):
    """Module, output and terms of the package, and its weights of the terms."""
    xs, edges, genes, normal = inputs(seed)
    clf = MoMKDClassifier.preset(preset, **SMALL)
    module, objective = clf._make_module(N_FEATURES, N_GENES, 2), clf._make_loss()
    initialise(module, torch.Generator().manual_seed(seed))
    module = module.double().eval()  # without dropout
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad and parameter.dim() == 1:
                parameter.add_(0.3 * normal(*parameter.shape))
        lengths = torch.linspace(0.4, 1.6, 6, dtype=torch.float64).view(2, 3, 1)
        module.memory.rows.mul_(lengths.flip(1))  # rows of any length
    shifts = [0, *torch.tensor(SIZES).cumsum(0)]
    joined = [torch.tensor(e).T + s for e, s in zip(edges, shifts, strict=False)]
    batch = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    y, known = torch.tensor(Y), torch.ones(len(SIZES), dtype=torch.bool)
    x = torch.cat(xs)
    output = module(x, torch.cat(joined, dim=1), batch, len(SIZES), y=y, omics=genes, paired=known)
    return module, output, objective.terms(output, y), objective.weights


def printed(module, seed):
    """Outputs, terms and parameters of the implementation from the equations."""
    parameters = {k: v.detach().clone().requires_grad_() for k, v in module.named_parameters()}
    xs, edges, genes, _ = inputs(seed)
    slides = zip(xs, edges, genes, Y, strict=True)
    found = [slide(parameters, list(x), e, o, y) for x, e, o, y in slides]
    outputs = {
        name: torch.cat([o[name] for o, _ in found])
        if name in {"attention", "projection"}
        else torch.stack([o[name] for o, _ in found])
        for name in found[0][0]
    }
    terms = {name: torch.stack([t[name] for _, t in found]) for name in WEIGHTS}
    return outputs, terms, parameters


def close(actual, expected, what):
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0, msg=lambda m: f"{what}: {m}")


@pytest.mark.parametrize("seed", [0, 1])
def test_paper_preset_is_the_printed_equations(seed):
    module, output, terms, weights = library("paper", seed)
    outputs, expected, parameters = printed(module, seed)
    for name, value in outputs.items():
        close(getattr(output, name), value, name)
    for name, value in expected.items():
        close(terms[name], value, name)
    assert weights == WEIGHTS
    total = weighted_total(terms, weights)
    recoded = sum(WEIGHTS[name] * value.mean() for name, value in expected.items())
    close(total, recoded, "total (Eq. 9)")
    total.backward()
    recoded.backward()
    learned = {k: v for k, v in module.named_parameters() if v.requires_grad}
    assert set(parameters) - set(learned) == {"log_tau"}  # fixed in the paper
    for name, parameter in learned.items():
        close(parameter.grad, parameters[name].grad, f"gradient of {name}")
        assert parameter.grad.any(), name


@pytest.mark.parametrize("term", WEIGHTS)
def test_gradient_of_each_printed_term_is_the_library_s(term):
    module, _, terms, _ = library("paper", 0)
    _, expected, parameters = printed(module, 0)
    terms[term].mean().backward()
    expected[term].mean().backward()
    for name, parameter in module.named_parameters():
        theirs, ours = parameters[name].grad, parameter.grad
        if ours is None or theirs is None:
            absent = torch.zeros_like(parameter)
            ours, theirs = (absent if g is None else g for g in (ours, theirs))
        close(ours, theirs, f"{term}, gradient of {name}")


def test_printed_memory_loss_takes_rows_of_both_memories_by_euclidean_distance():
    """The comparison above would not notice choices that never differ: here they do."""
    module, output, _, _ = library("paper", 0)
    rows = module.memory.rows.detach().flatten(0, 1)
    distance = torch.cdist(output.projection.detach(), rows)
    cosine = output.affinity.detach().flatten(1)
    euclidean, own = distance.argmin(dim=1), torch.tensor(Y)[output.batch]
    assert (euclidean // 3 != own).any()
    assert (euclidean != cosine.argmax(dim=1)).any()


@pytest.mark.parametrize("preset", ["default", "release"])
def test_other_presets_are_not_the_printed_memory_loss(preset):
    module, _, terms, _ = library(preset, 0)
    printed_module, _, expected, _ = library("paper", 0)
    assert terms["memory"].shape == expected["memory"].shape
    assert (terms["memory"] - expected["memory"]).abs().min() > 1e-2
    assert isinstance(printed_module.head, torch.nn.Linear)
    assert not isinstance(module.head, torch.nn.Linear)
