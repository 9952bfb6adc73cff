"""Files and functions of the package that one `fit` and one `evaluate` enter.

    python benchmarks/call_path.py

Counts distinct files, distinct functions and calls, on a small cohort with omics, after a first
call that imports what is loaded lazily.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import sk_momkd
from sk_momkd import MoMKDClassifier, evaluate, load_cohort, simulate_cohort

ROOT = str(Path(sk_momkd.__file__).parent)


def entered(call: Callable[[], object]) -> Counter:
    """How often each (file, function) of the package is entered while `call` runs."""
    seen: Counter = Counter()

    def note(frame, event, argument):
        code = frame.f_code
        named = not code.co_qualname.endswith(">")  # no comprehensions, no lambdas
        if event == "call" and named and code.co_filename.startswith(ROOT):
            seen[(code.co_filename, code.co_qualname)] += 1

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return seen


def report(name: str, seen: Counter) -> None:
    """Print one line of figures."""
    files = {file for file, _ in seen}
    print(f"{name}: {len(files)} files, {len(seen)} functions, {seen.total()} calls")
    package = Counter(str(Path(file).relative_to(ROOT).parent) for file, _ in seen)
    print("  functions by package:", ", ".join(f"{k} {v}" for k, v in package.most_common()))


def main() -> None:
    """Measure both calls on a simulated cohort."""
    with tempfile.TemporaryDirectory() as folder:
        paths = simulate_cohort(folder, n_patients=24, n_patches=12, random_state=0)
        bags, y, omics, _ = load_cohort(*paths, label="subtype")
        clf = MoMKDClassifier(hidden_dim=16, projection_dim=8, max_epochs=1, random_state=0)
        clf.fit(bags, y, omics=omics)
        fit = entered(lambda: clf.fit(bags, y, omics=omics))
        report("fit", fit)
        run = entered(lambda: evaluate(clf, bags, y, omics=omics, cv=2, n_bootstrap=10))
        report("evaluate", run)
        if "--list" in sys.argv:
            for (file, function), calls in sorted(fit.items()):
                print(f"{file.removeprefix(ROOT)} {function} {calls}")


if __name__ == "__main__":
    main()
