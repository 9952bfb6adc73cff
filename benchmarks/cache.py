"""Time to read a bag of one-row chunks, as tools write them, against its cached copy.

python benchmarks/cache.py [--patches 2000 8000] [--features 1536] [--repeats 7]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from sk_momkd import cache_bags, read_bags


def write(path: Path, n_patches: int, n_features: int) -> None:
    """A TRIDENT-style file with chunks of one patch."""
    features = np.random.default_rng(0).normal(size=(n_patches, n_features)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features, chunks=(1, n_features))
        file["coords"] = np.zeros((n_patches, 2), dtype=np.int64)


def main(options: argparse.Namespace) -> None:
    """Alternate the readers and print medians."""
    for n_patches in options.patches:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "slide.h5", n_patches, options.features)
            plain = read_bags(folder)
            readers = {"file": plain[0]}
            for dtype in ("float32", "float16", "bfloat16"):
                readers[f"cache {dtype}"] = cache_bags(plain, f"{folder}/cache", dtype=dtype)[0]
            time.sleep(3)  # a file that has just been written is hashed at each read
            times: dict[str, list[float]] = {name: [] for name in readers}
            for _ in range(options.repeats + 1):  # the first round makes the copies
                for name, bag in readers.items():
                    start = time.perf_counter()
                    bag.load()
                    times[name].append(time.perf_counter() - start)
        medians = {name: 1000 * float(np.median(t[1:])) for name, t in times.items()}
        shown = ", ".join(
            f"{name} {ms:.1f} ms ({medians['file'] / ms:.1f}x)" for name, ms in medians.items()
        )
        first = ", ".join(f"{name} {1000 * t[0]:.0f} ms" for name, t in times.items())
        print(f"{n_patches} patches x {options.features}: {shown}")
        print(f"  the first time, with hash and copy: {first}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", nargs="+", type=int, default=[2000, 8000])
    parser.add_argument("--features", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=7)
    main(parser.parse_args())
