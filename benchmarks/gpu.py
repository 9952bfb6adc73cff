"""Time, memory and utilisation of MoMKD on one GPU, in about five minutes.

python benchmarks/gpu.py [--device cuda] [--patches 500 2000 8000 32000 100000]
    [--slides 1000] [--slide-patches 2000] [--batch-sizes 1 16] [--minutes 5] [--write FILE.md]

Two tables. Steps: a training step and a prediction of one slide, in float32 and bfloat16, with the
operations one by one ("torch") and fused ("torch_compile"). Epochs: the library's own loader,
which copies from pinned memory, on slides of random features that are in memory; the seconds of an
epoch without the first, and the share of the time in which the GPU computed.
Measurements that would begin after `--minutes` are left out, and named.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pandas as pd
import torch
from speed import N_FEATURES, N_GENES, SIZES, Competitor, machine, momkd, peak_memory, slide

import sk_momkd
from sk_momkd.data.bag import Bag
from sk_momkd.data.sequence import BagSequence
from sk_momkd.nn.precision import native_bfloat16
from sk_momkd.training.batches import BagDataset, BagLoader, GraphSpec

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Utilisation:
    """Mean share of the time in which the GPU was busy, asked of its driver ten times a second."""

    def __init__(self, device: str) -> None:
        self.device, self.shares, self.stopped = device, [], Event()

    def __enter__(self) -> Utilisation:
        self.thread = Thread(target=self._ask, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()

    def _ask(self) -> None:
        while self.device != "cpu" and not self.stopped.wait(0.1):
            try:
                self.shares.append(torch.cuda.utilization(self.device))
            except (ModuleNotFoundError, RuntimeError):  # without pynvml, or its driver
                return

    @property
    def percent(self) -> float:
        """NaN where the driver was not asked or did not answer."""
        return float(np.mean(self.shares)) if self.shares else float("nan")


def wait_for(device: str) -> None:
    """Until the device has done all that it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def milliseconds(run: Callable[[], None], device: str, repeats: int) -> float:
    """Median of calls that each wait for the device."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        wait_for(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def steps(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """A row per bag size, precision and backend."""
    for n in options.patches:
        for precision in options.precisions:
            batch = slide(n, PRECISIONS[precision]).to(options.device)
            for backend in options.backends:
                if time.perf_counter() > options.until:
                    yield {"patches": n, "precision": precision, "backend": f"{backend}: left out"}
                    continue
                module = momkd(options.size, backend).to(options.device)
                one = Competitor(module, batch)
                row: dict[str, object] = {"patches": n, "precision": precision, "backend": backend}
                for step in (one.train, one.predict):
                    step()  # compiles, and makes the state of the optimiser
                    row[f"{step.__name__} MiB"] = peak_memory(step, options.device)
                    taken = milliseconds(step, options.device, options.repeats)
                    row[f"{step.__name__} ms"] = taken
                yield row


def dataset(options: argparse.Namespace) -> BagDataset:
    """Slides on a square lattice, of one matrix of random features: only the bytes matter."""
    n, side = options.slide_patches, int(options.slide_patches**0.5) + 1
    features = np.random.default_rng(0).standard_normal((n, N_FEATURES), dtype=np.float32)
    coords = np.stack(np.divmod(np.arange(n), side), axis=1) * 256
    bags = BagSequence(Bag(features, coords=coords, bag_id=str(i)) for i in range(options.slides))
    labels = np.arange(options.slides) % 2
    omics = np.random.default_rng(1).standard_normal((len(labels), N_GENES), dtype=np.float32)
    return BagDataset(
        bags,
        labels,
        GraphSpec(),
        N_FEATURES,
        omics=omics,
        paired=np.ones(len(labels), dtype=bool),
        dtype=PRECISIONS[options.precisions[-1]],
        cache_bytes=options.slides * features.nbytes,
    )


def epochs(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """A row per batch size: training on all slides once."""
    data = dataset(options)
    for size in options.batch_sizes:
        module = momkd(options.size, options.backends[0]).to(options.device)
        one = Competitor(module, slide(4, torch.float32))
        parts = [list(range(i, min(i + size, len(data)))) for i in range(0, len(data), size)]
        row: dict[str, object] = {"slides per step": size, "precision": options.precisions[-1]}
        for name in ("first epoch s", "epoch s"):
            if time.perf_counter() > options.until:
                row[name] = "left out"
                continue
            start = time.perf_counter()
            with Utilisation(options.device) as busy:
                for batch, _ in BagLoader(data, parts, options.device):
                    one.batch = batch
                    one.train()
                wait_for(options.device)
            row[name], row["GPU busy %"] = time.perf_counter() - start, busy.percent
        yield row


def as_markdown(rows: list[dict[str, object]]) -> str:
    """Table with figures of three digits."""
    table = pd.DataFrame(rows)
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * table.shape[1]]
    for row in table.itertuples(index=False):
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(options: argparse.Namespace) -> str:
    """Both tables, and what they were measured on."""
    title = (
        f"{machine(options.device)}; sk_momkd {sk_momkd.__version__}, torch {torch.__version__}, "
        f'sizes of `preset("{options.size}")`'
    )
    of_epochs = (
        f"Epochs of {options.slides:,} slides x {options.slide_patches:,} patches, "
        f"{N_FEATURES} features:"
    )
    tables = [as_markdown(list(rows(options))) for rows in (epochs, steps)]
    parts = [f"Machine: {title}.", of_epochs, tables[0], "Steps on one slide:", tables[1]]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=SIZES, default="default")
    parser.add_argument("--patches", nargs="+", type=int, default=[500, 2000, 8000, 32000, 100_000])
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--slide-patches", type=int, default=2000)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--backends", nargs="+", default=["torch", "torch_compile"])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    if options.precisions is None:
        options.precisions = ["float32", "bfloat16"][: 1 + native_bfloat16(options.device)]
    options.until = time.perf_counter() + 60 * options.minutes
    text = report(options)
    print(text)
    if options.write:
        options.write.write_text(text)


if __name__ == "__main__":
    main()
