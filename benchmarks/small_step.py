"""Steps and predictions of small bags: processor time beside another commit, and the authors'.

    python benchmarks/small_step.py [--data DATA] [--before CHECKOUT] [--official CHECKOUT]
        [--rounds 15] [--bags 60] [--features 1536] [--patients 500]
        [--what step small small_step predict predict_large]

With `--data` (or the environment variable SK_MOMKD_DATA) the bags are those of `tcga_brca`, else
random bags of four patches. Each competitor has a process of its own with one thread. They take
turns: in a round each trains one epoch with batches of one bag and the paper's sizes, or fits
`preset("small")` to all patients, and reports the processor time of a step or fit; also of a fit
with the settings that the preset had at first (soft labels of weight 0.8, no regression). Printed
are the medians, and the medians of the ratios within a round. "floor" is one update of as many
weights and the matrix products of the linear layers. "25 in lockstep" is a step of 25 networks side
by side, in plain torch on stacked weights (`small_stack.py`), divided by 25. "predict" is the time
per bag of `predict_proba` on as many random bags of four patches as there are patients,
"predict_large" on 20 bags of 2,000 patches. `CHECKOUT` of `--before` is another commit of this
repository, and that of `--official` is CAIR-LAB-WFUSM/MoMKD, which needs einops and einx.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

DIM, PROJECTION, COMPONENTS, GENES, HIDDEN = 256, 128, 16, 768, 512
STACKED, STACKED_STEPS = 25, 4


def read_bags(options: argparse.Namespace, n: int):
    """Bags, labels and omics."""
    if options.data is None:
        from sk_momkd import as_bags

        random = np.random.default_rng(0)
        arrays = list(random.normal(size=(n, 4, options.features)).astype(np.float32))
        omics = random.normal(size=(n, GENES)).astype(np.float32)
        return as_bags(arrays), np.arange(n) % 2, omics
    from real_cohorts import read_task, scale_patches

    bags, y, omics, _, _ = read_task(Path(options.data), "tcga_brca", "her2")
    bags, y = bags[:n], y[:n]
    return scale_patches().fit(bags).transform(bags), y, omics


def wait() -> None:
    """Wait for the turn of this process."""
    if not sys.stdin.readline():
        sys.exit()


def report(seconds: float) -> None:
    """Answer with milliseconds."""
    print(f"milliseconds {1000 * seconds}", flush=True)


def train_library(options: argparse.Namespace, *, small: bool = False) -> None:
    """Steps of `fit`: one epoch per turn."""
    import math

    from skorch.callbacks import Callback

    from sk_momkd import MoMKDClassifier

    class Turns(Callback):
        def on_epoch_begin(self, net, **kwargs):
            wait()
            self.start_ = time.process_time()

        def on_epoch_end(self, net, **kwargs):
            report((time.process_time() - self.start_) / n_steps)

    bags, y, omics = read_bags(options, options.patients if small else options.bags)
    clf = MoMKDClassifier.preset("small" if small else "default")
    n_steps = math.ceil(len(bags) / clf.batch_size)
    clf.set_params(early_stopping=False, max_epochs=10**6, random_state=0)
    clf.set_params(training__callbacks=[Turns()]).fit(bags, y, omics=omics)


def fit_small(options: argparse.Namespace, **settings: float) -> None:
    """Fits of `preset("small")`, of which the first compiles and is not counted."""
    from sk_momkd import MoMKDClassifier

    bags, y, omics = read_bags(options, options.patients)
    while True:
        wait()
        start = time.process_time()
        clf = MoMKDClassifier.preset("small", random_state=0, **settings)
        clf.fit(bags, y, omics=omics)
        report(time.process_time() - start)


def predict(options: argparse.Namespace, *, n_patches: int = 4) -> None:
    """Predictions of random bags with coordinates."""
    from sk_momkd import Bag, BagSequence, MoMKDClassifier

    random, n = np.random.default_rng(0), options.patients if n_patches == 4 else 20
    arrays = random.normal(size=(n, n_patches, options.features)).astype(np.float32)
    places = [random.permutation(10**4)[:n_patches, None] for _ in arrays]
    grids = [256 * np.hstack([place % 100, place // 100]) for place in places]
    bags = BagSequence(map(Bag, arrays, grids))
    clf = MoMKDClassifier(max_epochs=1, early_stopping=False, random_state=0)
    clf.fit(bags[:20], np.arange(20) % 2)
    while True:
        wait()
        start = time.process_time()
        clf.predict_proba(bags)
        report((time.process_time() - start) / n)


def train_official(options: argparse.Namespace, *, fused: bool = False) -> None:
    """Steps of the authors' training loop, with bags in memory and without a progress bar."""
    sys.path.insert(0, options.official)
    from models.mkd import MKD
    from utils.Mkd_train_utils import mkd_train_loop

    bags, y, _ = read_bags(options, options.bags)
    batches = []
    for bag, label in zip(bags, y, strict=True):
        x = torch.from_numpy(np.array(bag.features, dtype=np.float32))[None]
        own = torch.arange(x.shape[1])
        edges = torch.cartesian_prod(own, own).T  # 4 patches have fewer than 8 neighbours
        edges = edges[:, edges[0] != edges[1]][None]
        batches.append(((x, edges), torch.randn(1, GENES), torch.tensor([int(label)]), None))
    sizes = {"wsi_encoder_dim": DIM, "rna_embedding_dim": DIM, "shared_embedding_dim": PROJECTION}
    model = MKD(GENES, x.shape[2], **sizes, num_memory_per_class=COMPONENTS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=1e-4, fused=fused)
    settings = {"margin": 0.3, "gc": 16.0, "task_weight": 0.5, "alpha_rna": 0.05, "alpha_wsi": 0.2}
    while True:
        wait()
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            mkd_train_loop(0, model, batches, optimizer, settings, torch.device("cpu"))
        report((time.process_time() - start) / len(batches))


def run_floor(options: argparse.Namespace) -> None:
    """One update of the weights, and the products of all linear layers in both directions."""
    n_features = read_bags(options, 1)[0][0].features.shape[1]
    graph = [(n_features, DIM)] * 3 + [(DIM, DIM)] * 2 + [(DIM, PROJECTION)]
    slide = [(DIM, 128), (128, 2), (DIM, PROJECTION)]
    omics = [(GENES, HIDDEN), (HIDDEN, DIM), (DIM, PROJECTION), (DIM, HIDDEN), (HIDDEN, GENES)]
    products = []
    for n, layers in ((4, graph), (1, slide + omics)):
        for n_in, n_out in layers:
            x, weight, out = torch.rand(n, n_in), torch.rand(n_out, n_in), torch.rand(n, n_out)
            products += [(x, weight.T, out), (out.T, x, torch.rand(n_out, n_in))]
            if n_in not in (n_features, GENES):
                products.append((out, weight, torch.rand(n, n_in)))
    weights = torch.nn.Parameter(
        torch.rand(sum(n_in * n_out for n_in, n_out in graph + slide + omics))
    )
    weights.grad = torch.rand_like(weights)
    optimizer = torch.optim.AdamW([weights], fused=True)
    while True:
        wait()
        start = time.process_time()
        for _ in range(options.bags):
            for a, b, out in products:
                torch.mm(a, b, out=out)
            optimizer.step()
        report((time.process_time() - start) / options.bags)


def train_stack(options: argparse.Namespace, *, small: bool = False) -> None:
    """Steps of networks in lockstep, on random bags of the same shape."""
    from small_search import Folds, Settings
    from small_stack import Stack

    n_features = read_bags(options, 1)[0][0].features.shape[1]
    n = options.patients if small else options.bags
    x = torch.randn(STACKED, n, 4, n_features)
    y, sizes = torch.arange(n).expand(STACKED, n) % 2, torch.full((STACKED,), n)
    genes, teacher = torch.randn(STACKED, n, GENES), {1e-3: torch.rand(STACKED, n)}
    sizes_of_paper = {"hidden_dim": DIM, "projection_dim": PROJECTION, "head_hidden_dim": 128}
    paper = Settings(**sizes_of_paper, omics_hidden_dim=HIDDEN, batch_size=1)
    settings = Settings(lambda_teacher=0.8) if small else paper
    folds = Folds(x, y, genes, teacher, sizes, x[:, :1], [])
    stack = Stack(folds, settings, torch.Generator().manual_seed(0))
    weights = list(stack.weights.values())
    optimizer = torch.optim.AdamW(weights, fused=True)
    while True:
        wait()
        start = time.process_time()
        for _ in range(STACKED_STEPS):
            rows = torch.randint(n, (STACKED, settings.batch_size))
            stack.loss(rows, 0.0).sum().backward()
            for weight in weights:
                weight.grad.flatten(1).norm(dim=1)
            optimizer.step()
            optimizer.zero_grad()
        report((time.process_time() - start) / STACKED_STEPS / STACKED)


WORK = {
    "step": train_library,
    "official": train_official,
    "official, fused AdamW": lambda options: train_official(options, fused=True),
    "floor": run_floor,
    "small": fit_small,
    "small, first settings": lambda options: fit_small(
        options, lambda_teacher=0.8, pooled_share=0.0
    ),
    "25 in lockstep": train_stack,
    "predict": predict,
    "predict_large": lambda options: predict(options, n_patches=2000),
    "small_step": lambda options: train_library(options, small=True),
    "small_step, 25 in lockstep": lambda options: train_stack(options, small=True),
}


class Competitor:
    """A process that does one piece of work per turn."""

    def __init__(self, work: str, root: str) -> None:
        command = [sys.executable, __file__, *sys.argv[1:], "--work", work]
        found = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": found, "TQDM_DISABLE": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=os.environ | quiet, **pipes)

    def turn(self) -> float:
        """Milliseconds of processor time."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("milliseconds"):
                return float(line.split()[1])
        raise RuntimeError(f"{self.process.args} has ended.")


def compare(competitors: dict[str, Competitor], n_rounds: int) -> pd.DataFrame:
    """Median times and ratios; the first competitor is what the others are compared with."""
    for competitor in competitors.values():
        competitor.turn()
    rounds = pd.DataFrame(
        [{name: c.turn() for name, c in competitors.items()} for _ in range(n_rounds)]
    )
    ours = rounds.columns[0]
    ratios = rounds.div(rounds[ours], axis=0)
    columns = {"milliseconds": rounds.median(), f"median ratio to {ours}": ratios.median()}
    return pd.DataFrame(columns).round(3)


def main() -> None:
    """Run one piece of work, or all and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SK_MOMKD_DATA"))
    parser.add_argument("--before")
    parser.add_argument("--official")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bags", type=int, default=60)
    parser.add_argument("--features", type=int, default=1536)
    parser.add_argument("--patients", type=int, default=500)
    parser.add_argument("--what", nargs="+", default=["step", "small"])
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        WORK[options.work](options)
    here = str(Path(__file__).parents[1])
    for what in options.what:
        found = {"ours": Competitor(what, here)}
        if options.before:
            found["before"] = Competitor(what, options.before)
        if what == "step":
            found["floor"] = Competitor("floor", here)
            found["25 in lockstep"] = Competitor("25 in lockstep", here)
            if options.official:
                for work in ("official", "official, fused AdamW"):
                    found[work] = Competitor(work, here)
        if what == "small":
            found["first settings"] = Competitor("small, first settings", here)
        if what == "small_step":
            found["25 in lockstep"] = Competitor("small_step, 25 in lockstep", here)
        print(f"{what}\n{compare(found, options.rounds).to_markdown()}\n", flush=True)
        for competitor in found.values():
            competitor.process.kill()


if __name__ == "__main__":
    main()
