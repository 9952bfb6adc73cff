"""Time and memory of a training step and of inference, beside a textbook implementation.

python benchmarks/speed.py [--patches 500 2000 8000 16000 100000] [--sizes release default]
    [--repeats 5] [--device cpu] [--write docs/performance.md]

Everything is measured in one process, the competitors in turn, medians given. "textbook" is the
same mathematics with torch-geometric's GATv2Conv, as the authors' code has it; "textbook, tuned"
is the same, by itself, in a process whose malloc keeps its pages. "floor" is the matrix products
that the method cannot do without, and one write and one read of what its backward pass needs.
The library's own rows clip gradients and update weights as `fit` does, all others as torch does.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GATv2Conv

import sk_momkd
from sk_momkd.data.neighbors import nearest_patches
from sk_momkd.losses.momkd import momkd_terms
from sk_momkd.models.abmil import ABMIL
from sk_momkd.models.momkd import MoMKD
from sk_momkd.nn.edges import Edges
from sk_momkd.nn.initialization import initialise
from sk_momkd.nn.workspace import clear_workspaces
from sk_momkd.training.batches import FlatBatch, forward, single_bag_batch
from sk_momkd.training.callbacks import ClipGradients
from sk_momkd.training.config import weighted_total
from sk_momkd.training.optimizers import FusedAdam

N_FEATURES, N_GENES = 1536, 768
SIZES = {
    "release": {"dim": 512, "projection_dim": 64},
    "default": {"dim": 256, "projection_dim": 128},
}
WEIGHTS = {"ce": 0.5, "mse": 0.01, "memory": 0.1, "align_omics": 0.05, "align_wsi": 0.2}


class Textbook(nn.Module):
    """The graph encoder as one writes it with torch-geometric."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.backend = "torch"  # `MoMKD` asks for it: no compiled loops, as in the encoder
        self.gat1 = GATv2Conv(N_FEATURES, dim // 2, heads=2, dropout=0.5)
        self.gat2 = GATv2Conv(dim, dim // 2, heads=2, dropout=0.5)
        self.residual = nn.Linear(N_FEATURES, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        new = F.dropout(F.elu(self.norm1(self.gat1(x, edges))), 0.5, self.training)
        first = new + self.residual(x)
        new = F.dropout(F.elu(self.norm2(self.gat2(first, edges))), 0.5, self.training)
        return torch.maximum(first, new + first)


class Measured(NamedTuple):
    """Median milliseconds, and MiB above what was there before."""

    time: float
    memory: float


class Competitor:
    """A way to do one step of training and one prediction of a bag."""

    def __init__(self, module: nn.Module, batch: FlatBatch, *, momkd: bool = True) -> None:
        self.module, self.batch, self.momkd = module, batch, momkd
        parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=2e-4, fused=True)

    def train(self) -> None:
        """Forward, loss, backward, clipping and update."""
        self.module.train()
        output = forward(self.module, self.batch, training=True)
        if self.momkd:
            loss = weighted_total(momkd_terms(output, self.batch.y), WEIGHTS)
        else:
            loss = F.cross_entropy(output.logits, self.batch.y)
        loss.backward()
        self.clip()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def clip(self) -> None:
        """Clip the gradients as torch does."""
        nn.utils.clip_grad_norm_(self.module.parameters(), 16.0)

    @torch.no_grad()
    def predict(self) -> None:
        """Histology alone."""
        self.module.eval()
        forward(self.module, self.batch, training=False)


class Library(Competitor):
    """With the clipping and the optimizer of `fit`."""

    def __init__(self, module: nn.Module, batch: FlatBatch) -> None:
        super().__init__(module, batch)
        self.clipping = ClipGradients(16.0, "global")
        self.trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if batch.x.device.type == "cpu":
            parameters = [p for _, p in self.trained]
            self.optimizer = FusedAdam(parameters, lr=2e-4, decoupled_weight_decay=True)

    def clip(self) -> None:
        """Clip the gradients where they are too large."""
        self.clipping.on_grad_computed(None, self.trained)


class Floor:
    """Matrix products and traffic that no implementation of the method avoids."""

    def __init__(self, n: int, dim: int, projection_dim: int, dtype: torch.dtype) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype)

        self.products: list[tuple[Tensor, Tensor, Tensor]] = []
        self.backward: list[tuple[Tensor, Tensor, Tensor]] = []
        layers = ((N_FEATURES, 3 * dim), (dim, 2 * dim), (dim, projection_dim))
        for k, (n_in, n_out) in enumerate(layers):
            x, weight, out = zeros(n, n_in), zeros(n_out, n_in), zeros(n, n_out)
            self.products.append((x, weight.T, out))
            self.backward.append((out.T, x, zeros(n_out, n_in)))
            if k:  # the features need no gradient
                self.backward.append((out, weight, zeros(n, n_in)))
        self.activations = zeros(n, 4 * dim), zeros(n, 4 * dim)
        size = N_FEATURES * 3 * dim + 2 * dim * dim + 2 * N_GENES * 512 + 2 * 512 * dim
        self.weights = nn.Parameter(torch.zeros(size))
        self.weights.grad = torch.zeros(size)
        self.optimizer = torch.optim.AdamW([self.weights], fused=True)

    def train(self) -> None:
        """All products, activations written once and read once, weights updated."""
        for a, b, out in self.products + self.backward:
            torch.mm(a, b, out=out)
        self.activations[0].copy_(self.activations[1])
        self.optimizer.step()

    def predict(self) -> None:
        """The forward products, and activations written once (half a copy is read)."""
        for a, b, out in self.products:
            torch.mm(a, b, out=out)
        half = self.activations[0].shape[1] // 2
        self.activations[0][:, :half].copy_(self.activations[1][:, :half])


def slide(n: int, dtype: torch.dtype) -> FlatBatch:
    """A bag on a square lattice."""
    side = int(n**0.5) + 1
    neighbors = nearest_patches(np.stack(np.divmod(np.arange(n), side), axis=1), 8)
    own = np.repeat(np.arange(n), neighbors.shape[1])
    edges = torch.from_numpy(np.stack([neighbors.ravel(), own]))
    random = torch.Generator().manual_seed(0)
    x = torch.randn(n, N_FEATURES, generator=random).to(dtype)
    omics = torch.randn(1, N_GENES, generator=random)
    return single_bag_batch(x, Edges.of(edges, n), y=1, paired=True, omics=omics)


def momkd(size: str, backend: str = "auto", textbook: bool = False) -> MoMKD:
    """The model at one of the size presets."""
    module = MoMKD(N_FEATURES, N_GENES, 2, **SIZES[size], backend=backend)
    initialise(module, torch.Generator().manual_seed(0))
    if textbook:
        module.encoder = Textbook(SIZES[size]["dim"])
    return module


def textbook(batch: FlatBatch, size: str) -> Competitor:
    """The implementation that the others are compared with."""
    pairs = torch.stack(batch.edges.pairs())
    plain = FlatBatch(**{**vars(batch), "edges": pairs[:, pairs[0] != pairs[1]]})
    return Competitor(momkd(size, textbook=True).to(batch.x.device), plain)


def competitors(n: int, size: str, backends: list[str], device: str) -> dict[str, Competitor]:
    """Everything that is compared at one bag size."""
    wide, short = slide(n, torch.float32).to(device), slide(n, torch.bfloat16).to(device)
    found = {"textbook": textbook(wide, size)}
    if device == "cpu":
        found["floor float32"] = Floor(n, **SIZES[size], dtype=torch.float32)
        found["floor bfloat16"] = Floor(n, **SIZES[size], dtype=torch.bfloat16)
    for backend in backends:
        for name, batch in (("float32", wide), ("bfloat16", short)):
            found[f"{backend} {name}"] = Library(momkd(size, backend).to(device), batch)
    abmil = ABMIL(N_FEATURES, 2)
    initialise(abmil, torch.Generator().manual_seed(0))
    found["gated attention MIL"] = Competitor(abmil.to(device), wide, momkd=False)
    return found | torchmil_models(wide)


class _TorchMIL(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, *_: object, **known: object) -> object:
        logit = self.module(x.unsqueeze(0)).reshape(1, 1)
        return argparse.Namespace(logits=torch.cat([torch.zeros_like(logit), logit], dim=1))


def torchmil_models(batch: FlatBatch) -> dict[str, Competitor]:
    """ABMIL and TransMIL of torchmil, where it is installed."""
    try:
        from torchmil.models import ABMIL as Theirs, TransMIL
    except ImportError:
        return {}
    made = {
        "torchmil ABMIL": Theirs(in_shape=(N_FEATURES,), att_dim=128, gated=True),
        "torchmil TransMIL": TransMIL(in_shape=(N_FEATURES,)),
    }
    device = batch.x.device
    return {
        name: Competitor(_TorchMIL(model).to(device), batch, momkd=False)
        for name, model in made.items()
    }


def tuned_textbook(n: int, size: str, step: str, repeats: int) -> Measured:
    """The textbook in a process of its own, whose malloc never gives pages back."""
    tuned = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}
    call = f"import speed; print(*speed.alone({n}, {size!r}, {step!r}, {repeats}))"
    command = [sys.executable, "-c", call]
    done = subprocess.run(
        command,
        env=os.environ | tuned,
        cwd=Path(__file__).parent,
        check=True,
        capture_output=True,
        text=True,
    )
    return Measured(*map(float, done.stdout.split()[-2:]))


def alone(n: int, size: str, step: str, repeats: int) -> Measured:
    """The textbook with nothing beside it."""
    found = {"textbook": textbook(slide(n, torch.float32), size)}
    table = measure(found, step, repeats, "cpu")
    return Measured(table.loc["textbook", "time"], table.loc["textbook", "memory"])


def resident(field: str) -> float:
    """MiB of this process, now ("VmRSS") or at most ("VmHWM")."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return float("nan")


def peak_memory(run: Callable[[], None], device: str) -> float:
    """MiB that a call needs above what is there before it."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def measure(found: dict[str, Competitor], step: str, repeats: int, device: str) -> pd.DataFrame:
    """Median time and peak memory of each competitor, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in found}
    memory = {}
    for round_ in range(repeats + 1):
        for name, competitor in found.items():
            run = getattr(competitor, step)
            if round_ == 0:
                run()  # compiles, and makes the optimiser's state
                clear_workspaces(getattr(competitor, "module", nn.Module()))
                memory[name] = peak_memory(run, device)
            start = time.perf_counter()
            run()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            times[name].append(1000 * (time.perf_counter() - start))
    rows = {name: Measured(statistics.median(t[1:]), memory[name]) for name, t in times.items()}
    return pd.DataFrame(rows, index=Measured._fields).T


def against(table: pd.DataFrame) -> pd.DataFrame:
    """With ratios to the textbook and to the floor of the same precision."""
    table["faster"] = table.loc["textbook", "time"] / table["time"]
    table["smaller"] = table.loc["textbook", "memory"] / table["memory"].clip(lower=0.1)
    for floor in table.index[table.index.str.startswith("floor")]:
        ours = table.index[table.index.str.endswith(floor.split()[1])]
        table.loc[ours, "x floor"] = table.loc[ours, "time"] / table.loc[floor, "time"]
    return table


def report(results: pd.DataFrame, options: argparse.Namespace) -> str:
    """Markdown with one table per size and step."""
    lines = [
        "# Speed and memory",
        "",
        "Written by `python benchmarks/speed.py`; the names are explained there. Times are",
        "medians in milliseconds of runs in turn, memory is MiB above the bag and the model;",
        "ratios are against the textbook implementation in the same run.",
        "",
        f"Machine: {machine(options.device)}. sk_momkd {sk_momkd.__version__}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads.",
        "",
        f"Measured with {sk_momkd.__version__}: what has changed since is in CHANGELOG.",
    ]
    for (size, step), part in results.groupby(["size", "step"], sort=False):
        lines += ["", f'## {step}, sizes of `preset("{size}")`', ""]
        shown = part.drop(columns=["size", "step"])
        lines += ["| " + " | ".join(shown.columns) + " |", "|" + "---|" * shown.shape[1]]
        for row in shown.itertuples(index=False):
            lines.append("| " + " | ".join(_cell(value) for value in row) + " |")
        lines += ["", growth(part)]
    return "\n".join(lines) + "\n"


def growth(part: pd.DataFrame) -> str:
    """Exponents of time in patches, from 2,000 on."""
    large = part[part["patches"] >= 2000].pivot(index="patches", columns="what", values="time")
    if len(large) < 2:
        return ""
    first, last = large.index[0], large.index[-1]
    exponents = np.log(large.loc[last] / large.loc[first]) / np.log(last / first)
    listed = ", ".join(f"{name} {value:.2f}" for name, value in exponents.dropna().items())
    return f"Time grows with patches ({first:,} to {last:,}) to the power of: {listed}."


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return str(value)


def machine(device: str) -> str:
    """What it ran on."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    flags = Path("/proc/cpuinfo").read_text()
    extras = [name for name in ("avx512f", "avx512_bf16", "amx_bf16") if f" {name}" in flags]
    name = models[0].split(":")[1].strip() if models else platform.processor()
    used = f"{os.cpu_count()} cores, threads: {torch.get_num_threads()}"
    return f"{name}, {used}, {' '.join(extras)}"


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", nargs="+", type=int, default=[500, 2000, 8000, 16000, 100_000])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--steps", nargs="+", default=["train", "predict"])
    parser.add_argument("--backends", nargs="+", default=["numba", "torch"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    tables = []
    for size in options.sizes:
        for step in options.steps:
            for n in options.patches:
                if step == "train" and n > 20_000:
                    continue
                found = competitors(n, size, options.backends, options.device)
                table = measure(found, step, options.repeats, options.device)
                if options.device == "cpu":
                    measured = tuned_textbook(n, size, step, options.repeats)
                    table.loc["textbook, tuned", list(Measured._fields)] = measured
                table = against(table)
                table = table.reset_index(names="what")
                for column, value in (("patches", n), ("step", step), ("size", size)):
                    table.insert(0, column, value)
                print(table.to_string(index=False, float_format="%.2f"), flush=True)
                tables.append(table)
    if options.write:
        options.write.write_text(report(pd.concat(tables), options))


if __name__ == "__main__":
    main()
