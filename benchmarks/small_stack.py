"""Many MoMKD networks side by side: every weight has a first axis M for the fit.

For bags of equal size with complete graphs; equations as in `sk_momkd.models.momkd` and
`sk_momkd.losses.momkd`. Shapes: M fits, B bags, I instances, D, P projection, K classes, m rows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_momkd.models.momkd import MoMKD
from sk_momkd.nn.memory import spherical_kmeans

_HEADS, _BETA, _TAU_AGG, _TAU = 2, 20.0, 5.0, 0.2


class Stack:
    """Weights of M networks by name, their logits, and their losses.

    Parameters
    ----------
    folds : Folds
    settings : Settings
    generator : torch.Generator
        Of the K-means start.
    """

    def __init__(self, folds: Any, settings: Any, generator: torch.Generator) -> None:
        self.folds, self.settings = folds, settings
        self.n_fits, _, self.n_instances, n_features = folds.x.shape
        self.weights: dict[str, Tensor] = {}
        self.omics_alignment = math.nan
        s, d = settings, settings.hidden_dim
        for name, n_in in (("gat1", n_features), ("gat2", d)):
            self._linear(f"{name}.lin_l", n_in, d, glorot=True)
            self._linear(f"{name}.lin_r", n_in, d, glorot=True)
            bound = math.sqrt(6 / (_HEADS + d // _HEADS))
            self._weight(f"{name}.att", (1, 1, 1, _HEADS, d // _HEADS), bound)
            self.weights[f"{name}.bias"] = torch.zeros(self.n_fits, 1, d)
        self._linear("residual", n_features, d)
        self._norms(norm1=d, norm2=d, head_norm=d)
        self._linear("patch_projector", d, s.projection_dim)
        self._linear("slide_projector", d, s.projection_dim)
        self._linear("head1", d, s.head_hidden_dim)
        self._linear("head2", s.head_hidden_dim, 2)
        if self.reads_omics:
            n_genes, hidden = folds.genes.shape[2], s.omics_hidden_dim
            self._linear("encoder1", n_genes, hidden)
            self._linear("encoder2", hidden, d)
            self._linear("decoder1", d, hidden)
            self._linear("decoder2", hidden, n_genes)
            self._linear("omics_projector", d, s.projection_dim)
            self._norms(encoder_norm=hidden, decoder_norm=hidden)
        self.weights["memory"] = self._start_memory(generator)
        for weight in self.weights.values():
            weight.requires_grad_()

    @property
    def reads_omics(self) -> bool:
        s = self.settings
        return s.omics and max(s.alpha_omics, s.match, s.contrast) > 0

    def _weight(self, name: str, shape: tuple[int, ...], bound: float) -> None:
        self.weights[name] = (torch.rand(self.n_fits, *shape) * 2 - 1) * bound

    def _linear(self, name: str, n_in: int, n_out: int, *, glorot: bool = False) -> None:
        bound = 1 / math.sqrt(n_in)
        self._weight(
            f"{name}.weight", (n_in, n_out), math.sqrt(6 / (n_in + n_out)) if glorot else bound
        )
        self._weight(f"{name}.bias", (1, n_out), bound)

    def _norms(self, **widths: int) -> None:
        for name, width in widths.items():
            self.weights[f"{name}.weight"] = torch.ones(self.n_fits, 1, width)
            self.weights[f"{name}.bias"] = torch.zeros(self.n_fits, 1, width)

    @torch.no_grad()
    def _start_memory(self, generator: torch.Generator) -> Tensor:
        """K-means centres of the untrained projections of each class, (M, K, m, P)."""
        folds, s = self.folds, self.settings
        points = self._project(self._encode(folds.x, training=False), "patch_projector")
        points = points.unflatten(1, (-1, self.n_instances))
        return torch.stack(
            [
                torch.stack(
                    [
                        spherical_kmeans(
                            points[i, :n][folds.y[i, :n] == c].flatten(0, 1),
                            s.n_components,
                            generator=generator,
                            init="random",
                        )
                        for c in (0, 1)
                    ]
                )
                for i, n in enumerate(folds.sizes)
            ]
        )

    # --- the network ---------------------------------------------------------------------

    def _apply(self, name: str, x: Tensor) -> Tensor:
        return torch.baddbmm(self.weights[f"{name}.bias"], x, self.weights[f"{name}.weight"])

    def _normed(self, name: str, x: Tensor) -> Tensor:
        scaled = F.layer_norm(x, x.shape[-1:]) * self.weights[f"{name}.weight"]
        return scaled + self.weights[f"{name}.bias"]

    def _project(self, x: Tensor, name: str) -> Tensor:
        return F.normalize(self._apply(name, x), dim=-1)

    def _attend(self, name: str, x: Tensor, *, training: bool) -> Tensor:
        """GATv2 on complete graphs: (M, B I, n_in) -> (M, B I, D)."""
        shape = (self.n_fits, -1, self.n_instances, _HEADS, self.settings.hidden_dim // _HEADS)
        sent, seen = (self._apply(f"{name}.lin_{k}", x).view(shape) for k in "lr")
        pairs = F.leaky_relu(seen.unsqueeze(3) + sent.unsqueeze(2), 0.2)  # (M, B, I, I, H, D/H)
        weight = (pairs * self.weights[f"{name}.att"]).sum(-1).softmax(dim=3)
        weight = F.dropout(weight, self.settings.dropout, training)
        out = torch.einsum("mbijh,mbjhd->mbihd", weight, sent)
        return out.reshape(self.n_fits, x.shape[1], -1) + self.weights[f"{name}.bias"]

    def _encode(self, x: Tensor, *, training: bool) -> Tensor:
        """(M, B, I, n_features) -> F (M, B I, D)."""
        p, x = self.settings.dropout, x.flatten(1, 2)
        first = F.elu(self._normed("norm1", self._attend("gat1", x, training=training)))
        first = F.dropout(first, p, training) + self._apply("residual", x)
        second = F.elu(self._normed("norm2", self._attend("gat2", first, training=training)))
        return torch.maximum(first, F.dropout(second, p, training) + first)

    def _forward(self, x: Tensor, *, training: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (M, B, 2), patch projections, their affinities (M, B I, K, m), slide vectors."""
        s = self.settings
        x = F.dropout(x, s.input_dropout, training) if s.input_dropout else x
        embedding = self._encode(x, training=training)
        projection = self._project(embedding, "patch_projector")
        rows = F.normalize(self.weights["memory"].detach(), dim=-1)
        affinity = torch.einsum("mnp,mkjp->mnkj", projection, rows)
        best = affinity.amax(dim=3)
        score = (best[..., 1] - best[..., 0]).unflatten(1, (-1, self.n_instances)) / _TAU
        if training and s.instance_dropout:
            dropped = torch.rand(score.shape) < s.instance_dropout
            dropped[..., 0] &= ~dropped.all(dim=2)
            score = score.masked_fill(dropped, -torch.inf)
        embedding = embedding.unflatten(1, (-1, self.n_instances))
        pooled = torch.einsum("mbi,mbid->mbd", score.softmax(dim=2), embedding)
        hidden = F.relu(self._apply("head1", self._normed("head_norm", pooled)))
        logits = self._apply("head2", F.dropout(hidden, s.head_dropout, training))
        return logits, projection, affinity, self._project(pooled, "slide_projector")

    def logits(self, x: Tensor) -> Tensor:
        """(M, B, I, n_features) -> (M, B, 2), without dropout."""
        return self._forward(x, training=False)[0]

    # --- the objective -------------------------------------------------------------------

    def loss(self, rows: Tensor, progress: float) -> Tensor:
        """Total of each fit on the bags `rows` (M, B), (M,)."""
        s, fit = self.settings, torch.arange(self.n_fits)[:, None]
        x, y = self.folds.x[fit, rows], self.folds.y[fit, rows]
        logits, projection, affinity, slide = self._forward(x, training=True)
        memory = F.normalize(self.weights["memory"], dim=-1)
        margin = s.margin + s.margin_growth * progress
        target = F.one_hot(y, 2) * (1 - s.label_smoothing) + s.label_smoothing / 2
        z = torch.logit(self.folds.teacher[s.teacher_c][fit, rows], 1e-6)
        if s.omics and s.lambda_teacher:
            soft = torch.sigmoid(z / s.teacher_temperature)
            soft = torch.stack([1 - soft, soft], dim=2)
            target = (1 - s.lambda_teacher) * target + s.lambda_teacher * soft
        delta = self._margin(slide, memory)
        aim = target if s.teacher_alignment else F.one_hot(y, 2)
        total = s.lambda_ce * -(target * logits.log_softmax(dim=2)).sum(dim=2).mean(dim=1)
        total = total + s.alpha_wsi * self._alignment(delta, aim, margin)
        total = total + s.lambda_mem * self._memory_loss(projection, affinity, memory, y)
        if s.omics and s.regress:
            total = total + s.regress * (delta - s.margin * z).square().mean(dim=1)
        if not self.reads_omics:
            return total
        return total + self._omics_loss(self.folds.genes[fit, rows], y, slide, memory, margin)

    def _margin(self, f: Tensor, memory: Tensor) -> Tensor:
        """phi(f, C+) - phi(f, C-), (M, B)."""
        energy = (_TAU_AGG * torch.einsum("mbp,mkjp->mbkj", f, memory)).logsumexp(dim=3)
        return energy.diff(dim=2)[..., 0] / _TAU_AGG

    def _alignment(self, delta: Tensor, aim: Tensor, margin: float) -> Tensor:
        losses = [F.softplus(_BETA * (margin - sign * delta)) for sign in (-1, 1)]
        return (aim * torch.stack(losses, dim=2)).sum(dim=2).mean(dim=1)

    def _memory_loss(
        self, projection: Tensor, affinity: Tensor, memory: Tensor, y: Tensor
    ) -> Tensor:
        """Commitment and orthogonality (Eq. 10 as the authors' code scales it), (M,)."""
        fit, m = torch.arange(self.n_fits)[:, None], memory.shape[2]
        own = y.repeat_interleave(self.n_instances, dim=1)
        nearest = affinity[fit, torch.arange(own.shape[1])[None], own].argmax(dim=2)
        commitment = (projection - memory.detach()[fit, own, nearest]).square().mean(dim=(1, 2))
        squares = (memory @ memory.transpose(2, 3)).square().sum(dim=(2, 3))
        return commitment + (10 * (squares / m**2 - 1 / m))[fit, y].mean(dim=1)

    def _omics_loss(
        self, genes: Tensor, y: Tensor, slide: Tensor, memory: Tensor, margin: float
    ) -> Tensor:
        s = self.settings
        noised = F.dropout(genes, s.omics_noise) if s.omics_noise else genes
        code = self._two_layers("encoder", noised)
        omics = self._project(code, "omics_projector")
        error = (self._two_layers("decoder", code) - genes).square().mean(dim=(1, 2))
        alignment = self._alignment(self._margin(omics, memory), F.one_hot(y, 2), margin)
        self.omics_alignment = float(alignment.detach().mean())
        total = s.alpha_omics * alignment + s.lambda_mse * error
        affinities = [torch.einsum("mbp,mkjp->mbkj", f, memory) for f in (omics, slide)]
        if s.match:
            total = total + s.match * self._match(*affinities, y)
        if s.contrast:
            total = total + s.contrast * self._contrast(*affinities, y)
        return total

    def _two_layers(self, name: str, x: Tensor) -> Tensor:
        hidden = F.relu(self._normed(f"{name}_norm", self._apply(f"{name}1", x)))
        return self._apply(f"{name}2", F.dropout(hidden, self.settings.omics_dropout))

    def _match(self, omics: Tensor, slide: Tensor, y: Tensor) -> Tensor:
        if self.settings.match_classes:
            omics, slide = omics.flatten(2), slide.flatten(2)
        else:
            fit, bag = torch.arange(self.n_fits)[:, None], torch.arange(y.shape[1])[None]
            omics, slide = omics[fit, bag, y], slide[fit, bag, y]
        aim = (omics.detach() / 0.2).softmax(dim=2)
        found = (slide / 0.2).log_softmax(dim=2)
        return F.kl_div(found, aim, reduction="none").sum(dim=2).mean(dim=1)

    def _contrast(self, omics: Tensor, slide: Tensor, y: Tensor) -> Tensor:
        omics, slide = (F.normalize(a.flatten(2), dim=2) for a in (omics, slide))
        cosine = slide @ omics.transpose(1, 2) / 0.1
        cosine = cosine.masked_fill(y[:, :, None] != y[:, None, :], -torch.inf)
        return -cosine.log_softmax(dim=2).diagonal(dim1=1, dim2=2).mean(dim=1)

    # --- the same network in the library -------------------------------------------------

    @torch.no_grad()
    def momkd_of(self, fit: int) -> MoMKD:
        """One of the networks as the library's module, without its omics branch."""
        s = self.settings
        module = MoMKD(
            self.folds.x.shape[3],
            0,
            2,
            dim=s.hidden_dim,
            projection_dim=s.projection_dim,
            n_components=s.n_components,
            head_hidden_dim=s.head_hidden_dim,
        )
        w = {name: weight[fit] for name, weight in self.weights.items()}
        encoder = module.encoder
        parts = {
            "gat1.lin_l": encoder.gat1.lin_l,
            "gat1.lin_r": encoder.gat1.lin_r,
            "gat2.lin_l": encoder.gat2.lin_l,
            "gat2.lin_r": encoder.gat2.lin_r,
            "residual": encoder.residual,
            "norm1": encoder.norm1,
            "norm2": encoder.norm2,
            "patch_projector": module.patch_projector,
            "slide_projector": module.slide_projector,
            "head_norm": module.head[0],
            "head1": module.head[1],
            "head2": module.head[4],
        }
        for name, part in parts.items():
            part.weight.copy_(w[f"{name}.weight"].T.view_as(part.weight))
            part.bias.copy_(w[f"{name}.bias"].view_as(part.bias))
        for name, layer in (("gat1", encoder.gat1), ("gat2", encoder.gat2)):
            layer.att.copy_(w[f"{name}.att"].view_as(layer.att))
            layer.bias.copy_(w[f"{name}.bias"].view_as(layer.bias))
        module.memory.rows.copy_(w["memory"])
        return module.eval()
