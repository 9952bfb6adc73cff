"""Slides and instances without content: through files, in memory, cohorts, fit and prediction."""

import h5py
import numpy as np
import pandas as pd
import pytest

from sk_momkd import ABMILClassifier, Bag, as_bags, cache_bags, load_cohort, read_bags
from sk_momkd.data.bag import BagArrays
from sk_momkd.exceptions import BagError, BagFileError, EmptyInstancesWarning
from sk_momkd.training import batches

N = 4
Y = np.arange(N) % 2


def features_of(i):
    return np.random.default_rng(i).normal(size=(12, 10)).astype(np.float32)


def write(folder, last, *, fill=0, chunks=(3, 10)):
    """Four slides, of which the last has these features; rows of the fill value are not written."""
    for i in range(N):
        features = last if i == N - 1 else features_of(i)
        with h5py.File(folder / f"S{i}.h5", "w") as file:
            made = file.create_dataset(
                "features", features.shape, "f4", fillvalue=fill, chunks=chunks
            )
            made[:] = features
            file["coords"] = np.stack(np.divmod(np.arange(12), 4), axis=1) * 256
    return folder


def from_files(folder, last, **options):
    return read_bags(write(folder, last), **options)


def from_cache(folder, last, **options):
    return cache_bags(from_files(folder, last, **options), folder / "cache", dtype="float32")


def from_cohort(folder, last, **options):
    table = pd.DataFrame(
        {"slide_id": [f"S{i}" for i in range(N)], "case_id": [f"P{i}" for i in range(N)], "y": Y}
    )
    return load_cohort(table, write(folder, last), label="y", **options).bags


def from_arrays(folder, last, **options):
    for i in range(N):
        np.save(folder / f"S{i}.npy", last if i == N - 1 else features_of(i))
    return read_bags(folder, **options)


def in_memory(folder, last, *, allow_constant=False):
    parts = [last if i == N - 1 else features_of(i) for i in range(N)]
    return as_bags(
        [Bag(x, bag_id=f"S{i}", allow_constant=allow_constant) for i, x in enumerate(parts)]
    )


WAYS = [from_files, from_cache, from_cohort, from_arrays, in_memory]


def small(**options):
    return ABMILClassifier(max_epochs=1, early_stopping=False, random_state=0, **options)


def blocks(bag):
    with bag.opened(5) as opened:
        return bag.load() if opened is None else list(opened.read())


USES = {
    "load": lambda bags: bags[-1].load(),
    "blocks": lambda bags: blocks(bags[-1]),
    "fit": lambda bags: small().fit(bags, Y),
    "predict": lambda bags: small().fit(bags[:-1], Y[:-1]).predict_proba(bags),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", WAYS)
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_slide_of_zeros_is_refused_by_name_unless_allowed(tmp_path, make, use):
    zeros = np.zeros((12, 10), np.float32)
    with pytest.raises(BagError, match=r"S3.*all 120 feature values are 0.*allow_constant=True"):
        use(make(tmp_path, zeros))
    if use is USES["predict"]:
        with pytest.warns(UserWarning, match="not to be trusted"):
            use(make(tmp_path, zeros, allow_constant=True))
    else:
        use(make(tmp_path, zeros, allow_constant=True))


@pytest.mark.slow
@pytest.mark.parametrize("make", WAYS)
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_instances_of_zeros_warn_with_their_share_unless_allowed(tmp_path, make, use, recwarn):
    features = features_of(3)
    features[[2, 7, 8]] = 0
    with pytest.warns(EmptyInstancesWarning, match=r"'S3': 3 of 12 instances \(25\.0%\).*first is"):
        use(make(tmp_path, features))
    recwarn.clear()
    use(make(tmp_path, features, allow_constant=True))
    assert not [w for w in recwarn if issubclass(w.category, EmptyInstancesWarning)]


@pytest.mark.parametrize("make", WAYS)
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_instances_of_nan_are_refused_by_name(tmp_path, make, use):
    features = features_of(3)
    features[2] = np.nan
    with pytest.raises(BagError, match=r"S3.*10 NaN or infinite feature values.*instance 2"):
        use(make(tmp_path, features))


@pytest.mark.parametrize("fill", [-1.0, 7.5])
@pytest.mark.parametrize("use", ["load", "blocks", "fit"])
def test_instances_of_a_fill_value_are_told_as_those_of_zero(tmp_path, fill, use, recwarn):
    features = features_of(3)
    features[4:6] = fill
    folder = write(tmp_path, features, fill=fill)
    said = (
        rf"S3.*2 of 12 instances \(16\.7%\) have no feature but {fill:g}, the first is instance 4"
    )
    with pytest.warns(EmptyInstancesWarning, match=said):
        USES[use](read_bags(folder))
    recwarn.clear()
    USES[use](read_bags(folder, allow_constant=True))
    assert not [w for w in recwarn if issubclass(w.category, EmptyInstancesWarning)]
    folder = write(tmp_path, np.full((12, 10), fill, np.float32), fill=fill)
    with pytest.raises(BagError, match=rf"S3.*all 120 feature values are {fill:g}"):
        USES[use](read_bags(folder))


def test_chunks_that_were_never_written_are_refused_whatever_the_fill(tmp_path):
    for fill in (0, -1, np.nan):
        with h5py.File(tmp_path / "S0.h5", "w") as file:
            made = file.create_dataset("features", (12, 10), "f4", fillvalue=fill, chunks=(3, 10))
            made[:6] = features_of(0)[:6]
        for allow in (False, True):
            with pytest.raises(BagFileError, match=r"S0\.h5.*lacks 50\.0% of its content"):
                read_bags(tmp_path, allow_constant=allow)[0].load()


@pytest.fixture
def nothing_kept(monkeypatch):
    """Features are read again in each epoch."""
    plain = batches.BagDataset.__init__
    monkeypatch.setattr(
        batches.BagDataset,
        "__init__",
        lambda self, *args, **options: plain(self, *args, **(options | {"cache_bytes": 0})),
    )


class Growing:
    """A source, not a file, that has another length when it is read again and again."""

    shape = (12, 10)

    def __init__(self):
        self.n_reads = 0

    def read(self):
        self.n_reads += 1
        n = 12 if self.n_reads < 4 else 5
        return BagArrays(features_of(3)[:n], np.arange(2 * n).reshape(n, 2), None)


@pytest.mark.usefixtures("nothing_kept")
def test_source_that_changes_during_fit_is_named_with_both_shapes():
    bags = as_bags(
        [Bag(features_of(i), bag_id=f"S{i}") for i in range(3)] + [Bag(Growing(), bag_id="S3")]
    )
    said = r"bag 'S3' has changed.*\(12, 10\), and has \(5, 10\) now"
    with pytest.raises(BagError, match=said):
        small().set_params(max_epochs=9).fit(bags, Y)


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("make", [from_files, from_cache, from_cohort])
def test_file_that_changes_during_fit_is_named(tmp_path, make, monkeypatch):
    bags = make(tmp_path, features_of(3))
    plain, epochs = batches.BagLoader.__iter__, []

    def change_after_an_epoch(self):
        yield from plain(self)
        epochs.append(1)
        if len(epochs) == 2:
            write(tmp_path, features_of(9)[::-1])

    monkeypatch.setattr(batches.BagLoader, "__iter__", change_after_an_epoch)
    with pytest.raises(BagFileError, match=r"S\d\.h5 changed while it was in use"):
        small().set_params(max_epochs=9).fit(bags, Y)
