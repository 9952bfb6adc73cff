"""Grids, folds and predictions on the workers of Dask and Ray: as without, also if one dies."""

import os
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread

import joblib
import numpy as np
import psutil
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sk_momkd import (
    ABMILClassifier,
    Bag,
    evaluate,
    load_cohort,
    predict_cohort,
    read_bags,
    simulate_cohort,
    write_trident,
)
from sk_momkd.exceptions import FeatureShiftWarning
from sk_momkd.messages import warn
from sk_momkd.parallel import one_by_one

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    return simulate_cohort(folder, n_patients=12, n_patches=6, n_features=8, random_state=0)


@pytest.fixture(scope="module")
def slides(cohort):
    return load_cohort(cohort.table, cohort.features, label="subtype")[:2]


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


def small(**options):
    return ABMILClassifier(dim=8, max_epochs=1, early_stopping=False, random_state=0, **options)


def search():
    grid = {"learning_rate": [1e-3, 1e-2], "dropout": [0.0, 0.25]}
    return GridSearchCV(small(), grid, cv=2, scoring="roc_auc", n_jobs=2)


def kill_a_busy_worker(client, killed):
    """End the process of the first worker that has work; Dask starts it again."""
    pids = client.run(os.getpid)
    for _ in range(1000):
        busy = [worker for worker, keys in client.processing().items() if keys]
        if busy:
            os.kill(pids[busy[0]], signal.SIGKILL)
            killed.append(busy[0])
            return
        time.sleep(0.01)


def test_grid_search_on_dask_with_a_worker_killed_equals_the_serial_one(client, slides):
    bags, y = slides
    expected = search().set_params(n_jobs=1).fit(bags, y)
    killed = []
    killer = Thread(target=kill_a_busy_worker, args=(client, killed))
    with joblib.parallel_config("dask"):
        killer.start()
        found = search().fit(bags, y)
    killer.join()
    assert len(killed) == 1
    assert found.best_params_ == expected.best_params_
    for name, values in expected.cv_results_.items():
        if "time" not in name and "param" not in name:
            np.testing.assert_array_equal(found.cv_results_[name], values, err_msg=name)
    np.testing.assert_array_equal(found.predict_proba(bags), expected.predict_proba(bags))


def test_evaluation_on_dask_equals_the_serial_one(client, slides):
    bags, y = slides
    expected = evaluate(small(), bags, y, cv=2)
    with joblib.parallel_config("dask"):
        found = evaluate(small(), bags, y, cv=2, n_jobs=2)
    proba = [result.predictions.filter(like="p_").to_numpy() for result in (found, expected)]
    np.testing.assert_array_equal(*proba)


def test_predictions_on_dask_are_parts_of_the_workers(client, cohort, slides, tmp_path):
    bags, y = slides
    clf = small().fit(bags, y)
    table = predict_cohort(clf, cohort.features, tmp_path, format="csv", files_per_part=5)
    np.testing.assert_allclose(table.filter(like="p_"), clf.predict_proba(bags), rtol=1e-6)
    assert len(list(tmp_path.glob("part-*.csv"))) == 3


def warned_of():
    calls = [partial(warn, f"of fit {i}") for i in range(3)]
    with pytest.warns(UserWarning, match="of fit") as caught:
        assert [*one_by_one(calls, 2)] == [None, None, None]
    return [(str(one.message), one.filename) for one in caught]


def test_workers_of_dask_warn_in_the_line_of_the_caller(client):
    expected = warned_of()
    with joblib.parallel_config("dask"):
        assert warned_of() == expected


def test_predictions_on_dask_warn_in_the_line_of_the_caller(client, cohort, slides, tmp_path):
    bags, y = slides
    clf = small().fit(bags, y)
    paths = simulate_cohort(tmp_path, n_patients=4, n_patches=6, n_features=8, random_state=1)
    for path in Path(paths.features).iterdir():
        bag = read_bags([path])[0]
        write_trident(
            path, Bag(100 * bag.features, bag.coords, bag_id=bag.bag_id), patch_size_level0=512
        )
    with pytest.warns(FeatureShiftWarning, match="4 of 4 files .* times as far") as caught:
        predict_cohort(clf, paths.features, tmp_path / "out", format="csv")
    assert {one.filename for one in caught} == {__file__}


@pytest.fixture(scope="module")
def on_ray():
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    yield partial(joblib.parallel_config, "ray")
    ray.shutdown()


def test_grid_search_on_ray_equals_the_serial_one(on_ray, slides):
    bags, y = slides
    expected = search().set_params(n_jobs=1).fit(bags, y)
    with on_ray():
        assert [text for text, _ in warned_of()] == ["of fit 0", "of fit 1", "of fit 2"]
        found = search().fit(bags, y)
    assert found.best_params_ == expected.best_params_
    np.testing.assert_array_equal(found.predict_proba(bags), expected.predict_proba(bags))


def test_grid_search_on_ray_with_a_worker_killed_equals_the_serial_one(on_ray, slides):
    bags, y = slides
    long = search().set_params(estimator__max_epochs=30)
    expected = clone(long).set_params(n_jobs=1).fit(bags, y)
    killed = []
    killer = Thread(target=kill_a_busy_actor, args=(killed,))
    with on_ray(ray_remote_args={"max_restarts": 4, "max_task_retries": 4}):
        killer.start()
        found = clone(long).fit(bags, y)
    killer.join()
    assert len(killed) == 1
    np.testing.assert_array_equal(found.predict_proba(bags), expected.predict_proba(bags))
    for name, values in expected.cv_results_.items():
        if "time" not in name and "param" not in name:
            np.testing.assert_array_equal(found.cv_results_[name], values, err_msg=name)


def kill_a_busy_actor(killed):
    """End the process of the first actor of Ray that works; Ray starts it again."""
    for _ in range(1000):
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or [""]
            if "ray::PoolActor.run_batch" in command[0]:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
        time.sleep(0.01)
