"""Mutate saved models, and count what loading them gives.

Each case is one file, loaded in a worker process:

- file: bytes of the zip changed, missing or zeroed
- exchanged: a part of another model in the place of its own
- part: bytes of a part changed, with sums that fit, as whoever wants to harm would make them
- structure: a value of the JSON, or of the header of the arrays, replaced, with sums that fit

and one outcome:

- refused: a `ModelFileError` that names the file
- same: a model that holds the same, bit for bit
- other: another model, without a word; possible only where the sums were made to fit
- foreign: an error of another library, or of Python
- large: more than 300 MiB of memory were taken
- slow: more than ten seconds
- crash: the worker died

    python benchmarks/fuzz_models.py --write fuzz_models.csv

The results are appended case by case; a run that was interrupted is continued.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

CASES = {"file": 5000, "exchanged": 1000, "part": 2000, "structure": 2000}
SLOW, LARGE = 10, 300 * 1024  # seconds, KiB
VALUES: list[Any] = [
    *(None, True, -1, 0, 2**31, 2**70, 1e308, "", "a" * 1000, [], {}),
    *([[]] * 50, {"object": 0}, {"object": 10**6}, {"array": "x"}, {"float": "nan"}),
    *(
        {"dict": [[1, 2], [1, 3]]},
        {"tuple": []},
        {"sklearn": "sklearn_0.skops"},
        {"text": ["O", [9], []]},
    ),
    *({"scalar": ["<f8", "x"]}, {"scalar": ["<U9", 3]}, {"text": ["<U99999", [2**20], ["a"]]}),
    *({"bytes": "zz"}, {"path": 3}, {"random_state": [1, 2, 3, 4]}, {"record": ["HashedIds", {}]}),
    *({"table": [None, []]}, {"series": [1, 2]}, {"set": [[1]]}, {"__class__": "os.system"}),
]


def sound_models(folder: Path) -> list[Path]:
    """A classifier, another one, and a pipeline with steps of scikit-learn."""
    from conftest import make_bags, make_omics
    from quick import quick
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from sk_momkd import InstanceTransformer, save_model

    bags, y = make_bags(16)
    omics = make_omics(y)
    momkd = quick("MoMKDClassifier", max_epochs=1).fit(bags, y, omics=omics)
    abmil = quick("ABMILClassifier", max_epochs=1)
    scaled = make_pipeline(InstanceTransformer(StandardScaler()), abmil).fit(bags, y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(scaled)).fit(bags, y)
    options = {"include_omics": True, "include_validation": True}
    models = {"momkd": momkd, "scaled": scaled, "calibrated": calibrated}
    return [save_model(model, folder / f"{k}.zip", **options) for k, model in models.items()]


def places(node: Any) -> list[tuple[Any, Any]]:
    """All (container, key) of a JSON document."""
    keys = node.keys() if isinstance(node, dict) else range(len(node))
    inside = [(node, key) for key in keys]
    for key in keys:
        if isinstance(node[key], dict | list):
            inside += places(node[key])
    return inside


def with_other_value(content: bytes, random: np.random.Generator) -> bytes:
    """JSON with one value replaced, removed, or exchanged with another."""
    document = json.loads(content)
    where = places(document)
    container, key = where[random.integers(len(where))]
    other, other_key = where[random.integers(len(where))]
    kind = random.integers(4)
    if kind == 0 and isinstance(container, dict):
        del container[key]
    elif kind == 1:
        container[key] = json.loads(json.dumps(other[other_key]))
    else:
        container[key] = VALUES[random.integers(len(VALUES))]
    return json.dumps(document).encode()


def with_other_header(content: bytes, random: np.random.Generator) -> bytes:
    """A file of arrays with one value of its header replaced."""
    length = int.from_bytes(content[:8], "little")
    header = with_other_value(content[8 : 8 + length], random)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def made(kind: str, sound: list[dict[str, bytes]], which: int, random: np.random.Generator) -> Any:
    """Parts of a model of this kind of case."""
    from persistence.tampered import mutated, with_sums

    parts = dict(sound[which])
    names = sorted(parts.keys() - {"README.md", "sk_momkd.json"})
    name = names[random.integers(len(names))]
    if kind == "exchanged":
        other = sound[(which + 1) % len(sound)]
        name = str(random.choice(["model.json", "model.safetensors", "sk_momkd.json"]))
        parts[name] = other[name]
        return with_sums(parts) if random.random() < 0.5 and name != "sk_momkd.json" else parts
    if kind == "part":
        return with_sums(parts | {name: mutated(parts[name], random)})
    if random.random() < 0.1:
        return parts | {"sk_momkd.json": with_other_value(parts["sk_momkd.json"], random)}
    name = "model.safetensors" if random.random() < 0.2 else "model.json"
    change = with_other_header if name == "model.safetensors" else with_other_value
    return with_sums(parts | {name: change(parts[name], random)})


def outcome(path: Path, expected: Any) -> tuple[str, str]:
    """Outcome of loading a file, and what was said."""
    from persistence.tampered import content_of

    from sk_momkd import ModelFileError, load_model

    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        model = load_model(path)
        result, said = "other", ""
    except ModelFileError as error:
        said = str(error)
        result = "refused" if str(path) in said else "foreign"
    except Exception as error:  # noqa: BLE001
        result, said = "foreign", f"{type(error).__name__}: {error}"
    try:
        if result == "other" and content_of(model) == expected:
            result = "same"
    except ValueError:  # it cannot be written, so it is not the same
        pass
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > LARGE:
        result = "large"
    return ("slow" if time.perf_counter() - started > SLOW else result), said[:300]


def work(table: Path, done: set[tuple[str, int]]) -> None:
    """Load all cases that are not done."""
    from persistence.tampered import content_of, mutated, parts_of, written

    from sk_momkd import load_model

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, open(table, "a", newline="") as file:
        paths = sound_models(Path(folder))
        sound = [parts_of(path) for path in paths]
        expected = [content_of(load_model(path)) for path in paths]
        writer, target = csv.writer(file), Path(folder) / "case.zip"
        for kind, n in CASES.items():
            for seed in range(n):
                if (kind, seed) in done:
                    continue
                random, which = np.random.default_rng(seed), seed % len(paths)
                writer.writerow([kind, seed, "crash", ""])  # unless the next line follows
                file.flush()
                if kind == "file":
                    target.write_bytes(mutated(paths[which].read_bytes(), random))
                else:
                    written(target, made(kind, sound, which, random))
                writer.writerow([kind, seed, *outcome(target, expected[which])])
                file.flush()


def done_in(table: Path) -> pd.DataFrame:
    """Last line of each case."""
    names = ["kind", "seed", "outcome", "said"]
    text = table.read_text() if table.exists() else ""
    lines = pd.read_csv(io.StringIO(text), names=names, keep_default_na=False)
    return lines.drop_duplicates(["kind", "seed"], keep="last")


def main() -> None:
    """Start workers until all cases are done, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, default=Path("fuzz_models.csv"))
    parser.add_argument("--worker", action="store_true")
    options = parser.parse_args()
    lines = done_in(options.write)
    if options.worker:
        work(options.write, set(zip(lines["kind"], lines["seed"], strict=True)))
        return
    while len(lines) < sum(CASES.values()):
        command = [sys.executable, __file__, "--worker", "--write", str(options.write)]
        code = subprocess.run(command, check=False).returncode
        before, lines = len(lines), done_in(options.write)
        if code and len(lines) == before:
            raise SystemExit(f"The worker ended with {code} before its first case.")
    print(pd.crosstab(lines["kind"], lines["outcome"]))
    for said in lines.loc[lines["outcome"] == "foreign", "said"].drop_duplicates():
        print(said)


if __name__ == "__main__":
    main()
