"""What many rows say together."""

import numpy as np
import pandas as pd
import pytest

from sk_momkd.exceptions import FeatureShiftWarning
from sk_momkd.inspection.cohort_warnings import categories, in_one_column, texts_of, warn_of_slides


def rows_of(distances):
    ids = [f"S{i}" for i in range(len(distances))]
    return pd.DataFrame({"bag_id": ids, "distance": distances})


@pytest.mark.parametrize(
    ("distances", "doubtful"),
    [
        ([1.0, 2.5, 3.0, 4.5], [3]),  # four are too few to be judged together
        ([1.0, 1.0, 1.0, 2.5, 3.0], []),
        ([1.0, 2.5, 2.1, 2.5, np.nan, 3.0, 3.5], [1, 2, 3, 5, 6]),
        ([np.nan] * 6, []),
    ],
)
def test_slides_that_lie_together_far_from_training_are_all_named(distances, doubtful):
    rows = rows_of(distances)
    found = in_one_column(texts_of(rows))
    assert np.flatnonzero(found.notna()).tolist() == doubtful
    if doubtful:
        with pytest.warns(FeatureShiftWarning, match=f"{len(doubtful)} of {len(rows)}") as caught:
            warn_of_slides(texts_of(rows), rows)
        assert f"The worst: 'S{max(doubtful)}'" in str(caught[0].message)
        assert "not to be trusted" in str(caught[0].message)


def test_rows_of_an_earlier_version_have_nothing_to_say():
    rows = rows_of([1.0, 9.0]).drop(columns="distance")
    assert in_one_column(texts_of(rows)).tolist() == [None, None]
    assert categories(rows.assign(p_NoWarning=1.0, CohortWarning="odd.")) == ["CohortWarning"]
