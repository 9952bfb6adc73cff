"""Split files: complete or absent, read against the bags, with each patient on one side."""

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from sk_momkd import (
    Bag,
    BagSequence,
    PatientStratifiedKFold,
    read_splits,
    tissue_source_site,
    write_splits,
)
from sk_momkd.data.ids import normalise_id
from sk_momkd.exceptions import CohortError, CohortWarning, LeakageError

IDS = [f"{i:03d}" for i in range(10)]
SPLIT = ([0, 3, 5, 1, 9], [2, 4], [6, 7, 8])


def bags_of(ids, patients=None):
    patients = [None] * len(ids) if patients is None else patients
    return BagSequence(
        Bag(np.ones((1, 2)), bag_id=i, patient_id=p) for i, p in zip(ids, patients, strict=True)
    )


@pytest.fixture
def bags():
    return bags_of(IDS)


def lists(splits):
    return [[np.asarray(part).tolist() for part in split] for split in splits]


def clam_list(path, *parts):
    """As CLAM saves a split: three series side by side, with their row numbers."""
    frame = pd.concat([pd.Series(p, dtype=object) for p in parts], ignore_index=True, axis=1)
    frame.columns = ["train", "val", "test"]
    frame.to_csv(path)


def clam_bool(path, *parts):
    """As CLAM saves the boolean style: slide ids as the index, one True per row."""
    flags = np.repeat(np.eye(3).astype(bool), [len(p) for p in parts], axis=0)
    ids = [i for p in parts for i in p]
    pd.DataFrame(flags, index=ids, columns=["train", "val", "test"]).to_csv(path)


def clam_descriptor(path):
    counts = [[3, 1, 2], [2, 1, 1]]
    pd.DataFrame(counts, index=["tumor", "normal"], columns=["train", "val", "test"]).to_csv(path)


def named(*parts):
    return [[IDS[i] for i in part] for part in parts]


def test_write_splits_pads_with_empty_cells(tmp_path, bags):
    (path,) = write_splits(tmp_path / "new" / "folder", [SPLIT], bags)
    assert path == tmp_path / "new" / "folder" / "splits_0.csv"
    lines = path.read_text().splitlines()
    assert lines == ["train,val,test", "000,002,006", "003,004,007", "005,,008", "001,,", "009,,"]


def test_write_splits_files_are_read_by_the_tool_as_pandas_columns(tmp_path, bags):
    (path,) = write_splits(tmp_path, [SPLIT], bags)
    frame = pd.read_csv(path, dtype=bags.ids.dtype)
    assert frame["val"].dropna().tolist() == ["002", "004"]


def test_splits_come_back_in_order_beyond_ten(tmp_path, bags):
    splits = [
        tuple(np.roll(np.arange(10), k)[a:b] for a, b in ((0, 7), (7, 8), (8, 10)))
        for k in range(12)
    ]
    paths = write_splits(tmp_path, splits, bags)
    assert lists(read_splits(tmp_path, bags)) == lists(splits)
    assert lists(read_splits(paths[3:5], bags)) == lists(splits[3:5])
    assert lists(read_splits(str(paths[7]), bags)) == lists([splits[7]])


def test_splits_into_a_permuted_cohort_are_found_by_id(tmp_path, bags):
    write_splits(tmp_path, [SPLIT], bags)
    order = np.random.default_rng(0).permutation(10)
    for part, expected in zip(read_splits(tmp_path, bags[order])[0], SPLIT, strict=True):
        assert bags[order][part].ids.tolist() == bags[expected].ids.tolist()


def test_pairs_and_masks_are_written_with_an_empty_validation_part(tmp_path, bags):
    mask = np.arange(10) < 6
    write_splits(tmp_path, [(mask, ~mask), (np.arange(9), [9])], bags)
    expected = [[[*range(6)], [], [6, 7, 8, 9]], [[*range(9)], [], [9]]]
    got = read_splits(tmp_path, bags)
    assert lists(got) == expected
    assert all(part.dtype.kind == "i" for split in got for part in split)


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1, max_size=8)
_ID = _TEXT.filter(normalise_id)


@settings(max_examples=80, deadline=None)
@given(st.lists(_ID, min_size=4, max_size=12, unique_by=normalise_id), st.data())
def test_round_trip_of_any_ids_keeps_them(tmp_path_factory, ids, data):
    bags = bags_of(ids)
    order = data.draw(st.permutations(range(len(ids))))
    first, second = sorted(data.draw(st.lists(st.integers(1, len(ids)), min_size=2, max_size=2)))
    split = (order[:first], order[first:second], order[second:])
    folder = tmp_path_factory.mktemp("splits")
    write_splits(folder, [split], bags)
    assert lists(read_splits(folder, bags)) == lists([split])


@pytest.mark.parametrize("ids", [["NA", "nan", "null", "", "1e5", "007"]])
def test_ids_that_look_like_numbers_or_gaps_survive(tmp_path, ids):
    ids = [i for i in ids if i] + [" padded ", 'a,"b"', "1.0", "ß-Ω"]
    bags = bags_of(ids)
    write_splits(tmp_path, [(range(4), [4, 5], range(6, 9))], bags)
    assert lists(read_splits(tmp_path, bags)) == [[[0, 1, 2, 3], [4, 5], [6, 7, 8]]]


def test_folds_of_a_splitter_round_trip(tmp_path):
    bags = bags_of([f"S{i:02d}" for i in range(60)], [f"P{i // 2}" for i in range(60)])
    y = np.arange(60) // 2 % 2
    splits = list(PatientStratifiedKFold(3, random_state=0).split_three(bags, y))
    write_splits(tmp_path, splits, bags)
    assert lists(read_splits(tmp_path, bags)) == lists(splits)


def test_files_of_the_tool_are_read_whatever_their_style(tmp_path, bags):
    clam_list(tmp_path / "splits_0.csv", *named(*SPLIT))
    clam_bool(tmp_path / "splits_0_bool.csv", *named(*SPLIT))
    clam_descriptor(tmp_path / "splits_0_descriptor.csv")
    clam_bool(tmp_path / "splits_1_bool.csv", *named(range(8), [8], [9]))
    (tmp_path / "notes.txt").write_text("not a split")
    expected = [SPLIT, (range(8), [8], [9])]
    assert lists(read_splits(tmp_path, bags)) == lists(tuple(map(list, s)) for s in expected)
    assert lists(read_splits(tmp_path / "splits_0_bool.csv", bags)) == lists([SPLIT])


def test_boolean_file_from_a_spreadsheet_is_read(tmp_path, bags):
    rows = [
        f"{i},{'TRUE' if k < 8 else 'FALSE'},,{'TRUE' if k >= 8 else ''}" for k, i in enumerate(IDS)
    ]
    file = tmp_path / "splits_0_bool.csv"
    file.write_text("\ufeffslide_id,train,val,test\n" + "\n".join(rows), encoding="utf-8")
    assert lists(read_splits(file, bags)) == [[[*range(8)], [], [8, 9]]]


def test_short_rows_are_padding(tmp_path, bags):
    file = tmp_path / "splits_0.csv"
    file.write_text("train,val,test\n000,001,002\n003\n004,005\n006\n007\n008\n009\n")
    assert lists(read_splits(file, bags)) == [[[0, 3, 4, 6, 7, 8, 9], [1, 5], [2]]]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [("train,val", [[0, 3], [1], []]), ("test,train", [[1], [], [0, 3]])],
)
def test_absent_validation_or_test_column_is_an_empty_part(tmp_path, columns, expected):
    bags = bags_of(["000", "001", "002", "003"])
    (tmp_path / "splits_0.csv").write_text(f"{columns}\n000,001\n003,\n")
    with pytest.warns(CohortWarning, match="does not mention 1 of 4 slides.*'002'"):
        assert lists(read_splits(tmp_path, bags)) == [expected]


def test_boolean_file_without_a_test_column_is_read(tmp_path):
    bags = bags_of(["000", "001"])
    (tmp_path / "splits_0_bool.csv").write_text(",train,val\n000,True,False\n001,False,True\n")
    assert lists(read_splits(tmp_path, bags)) == [[[0], [1], []]]


def test_unmentioned_slides_are_reported_with_their_number(tmp_path, bags):
    clam_list(tmp_path / "splits_0.csv", *named([0, 1], [2], [3]))
    said = r"splits_0.csv does not mention 6 of 10 slides.*'004', '005', '006' and 3 more"
    with pytest.warns(CohortWarning, match=said) as caught:
        assert lists(read_splits(tmp_path, bags)) == [[[0, 1], [2], [3]]]
    assert caught[0].filename == __file__


def test_boolean_row_without_a_part_is_unmentioned(tmp_path, bags):
    file = tmp_path / "splits_0_bool.csv"
    clam_bool(file, *named(range(8), [8], [9]))
    file.write_text(file.read_text().replace("003,True", "003,False"))
    with pytest.warns(CohortWarning, match="does not mention 1 of 10 slides.*'003'"):
        assert 3 not in read_splits(file, bags)[0][0]


@pytest.mark.parametrize("write", [clam_list, clam_bool])
@pytest.mark.parametrize(
    ("parts", "error", "said"),
    [
        (
            (["000", "x1", "x2"], ["001"], ["002"]),
            CohortError,
            r"2 slides .* not among .*'x1', 'x2'",
        ),
        ((["0"], ["001"], ["002"]), CohortError, "1 slides that are not among the bags: '0'"),
        ((["000", "001", "000"], ["003"], ["002"]), CohortError, "1 slides twice.*'000'"),
    ],
)
def test_files_with_wrong_ids_raise_naming_file_and_ids(tmp_path, bags, write, parts, error, said):
    write(tmp_path / "splits_4_bool.csv", *parts)
    with pytest.raises(error, match=rf"splits_4_bool\.csv.*{said}"):
        read_splits(tmp_path, bags)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((["000", "001"], ["001"], ["002"]), "1 slides in both train and val: '001'"),
        (
            (["000", "001"], ["002"], ["001", "000"]),
            "2 slides in both train and test: '000', '001'",
        ),
        ((["000"], ["002", "001"], ["001"]), "1 slides in both val and test: '001'"),
    ],
)
def test_slide_on_two_sides_raises_naming_file_and_slide(tmp_path, bags, parts, said):
    clam_list(tmp_path / "splits_2.csv", *parts)
    with pytest.raises(LeakageError, match=rf"splits_2\.csv has {said}"):
        read_splits(tmp_path, bags)


def test_boolean_slide_on_two_sides_raises(tmp_path, bags):
    file = tmp_path / "splits_0_bool.csv"
    file.write_text(",train,val,test\n000,True,False,True\n001,False,True,False\n")
    with pytest.raises(LeakageError, match="both train and test: '000'"):
        read_splits(file, bags)


def test_patient_on_two_sides_raises_naming_file_and_patient(tmp_path):
    bags = bags_of(["S1", "S2", "S3", "S4"], ["A", "B", "B", "C"])
    clam_list(tmp_path / "splits_0.csv", ["S1"], ["S2", "S3"], ["S4"])
    clam_list(tmp_path / "splits_1.csv", ["S1"], ["S2"], ["S3", "S4"])
    said = r"splits_1\.csv has 1 patients on both sides of validation and test: 'B'"
    with pytest.raises(LeakageError, match=said):
        read_splits(tmp_path, bags)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; expected a first row"),
        (b"\xff\xfe\x00", "is not a readable table: it is not UTF-8 text"),
        (b"train\n000\n", "no column 'val', 'test'; it has 'train'.*or train and one of them"),
        (b"val,test\n000,001\n", "no column 'train'; it has 'val', 'test'"),
        (b"train,val,test\n000,001,002\n1,2,3,4,5,6,7\n", "row 2 has 7 cells, the header 3"),
        (b"train,val,test\nTrue,False,False\n", "no first column of slide ids"),
        (b"train;val;test\n000;001;002\n", "is separated by semicolons"),
    ],
)
def test_files_of_another_content_raise_naming_the_file(tmp_path, bags, content, said):
    (tmp_path / "splits_0.csv").write_bytes(content)
    with pytest.raises(CohortError, match=rf"splits_0\.csv.*{said}"):
        read_splits(tmp_path, bags)


def test_absent_files_raise(tmp_path, bags):
    with pytest.raises(CohortError, match=r"has no file splits_<k>\.csv"):
        read_splits(tmp_path, bags)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_splits(tmp_path / "nowhere", bags)


@pytest.mark.parametrize(
    ("ids", "split", "error", "said"),
    [
        (["a", None, "c"], ([0], [1], [2]), CohortError, "Split 0: bag 1 has no id"),
        (["a", "", "c"], ([0], [1], [2]), CohortError, "Split 0: bag 1 has no id"),
        (["a", "b", "c"], ([0, 0], [1], [2]), CohortError, "Split 0 names 1 slides twice: 'a'"),
        (["a", "b", "c"], ([0, 1], [1], [2]), LeakageError, "sides of train and validation: .*'b'"),
        (["a", "b", "c"], ([0],), ValueError, "Split 0 is neither"),
    ],
)
def test_write_splits_that_could_not_be_read_raise_and_write_nothing(
    tmp_path, ids, split, error, said
):
    with pytest.raises(error, match=said):
        write_splits(tmp_path / "out", [split], bags_of(ids))
    assert not (tmp_path / "out").exists()


def test_write_splits_of_a_torn_patient_raises(tmp_path):
    bags = bags_of(["S1", "S2", "S3"], ["A", "B", "A"])
    with pytest.raises(LeakageError, match=r"Split 0 has 1 patients.*train and test: 'A'"):
        write_splits(tmp_path, [([0], [1], [2])], bags)


def test_bags_that_repeat_an_id_are_refused(tmp_path, bags):
    write_splits(tmp_path, [SPLIT], bags)
    bootstrap = bags[[0, 0, 1]]
    with pytest.raises(CohortError, match="1 bag ids occur more than once: '000'"):
        read_splits(tmp_path, bootstrap)
    with pytest.raises(CohortError, match="1 bag ids occur more than once: '000'"):
        write_splits(tmp_path, [([0, 1], [2])], bootstrap)


def test_write_splits_beside_further_old_files_raises(tmp_path, bags):
    write_splits(tmp_path, [SPLIT, SPLIT, SPLIT], bags)
    with pytest.raises(CohortError, match=r"beyond the 1 .*'splits_1\.csv', 'splits_2\.csv'"):
        write_splits(tmp_path, [SPLIT], bags)
    other = (SPLIT[1], SPLIT[0], SPLIT[2])
    write_splits(tmp_path, [other] * 3, bags)
    assert lists(read_splits(tmp_path, bags)) == lists([other] * 3)


def test_write_splits_that_fails_leaves_the_old_file(tmp_path, bags, monkeypatch):
    (path,) = write_splits(tmp_path, [SPLIT], bags)
    before = path.read_text()

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_splits(tmp_path, [(SPLIT[1], SPLIT[0], SPLIT[2])], bags)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["splits_0.csv"]


def test_tcga_site_folds_round_trip(tmp_path, data_folder):
    table = pd.read_csv(data_folder / "tcga_brca" / "labels.csv", dtype={"site": str})
    bags = bags_of(table["slide_id"], table["case_id"])
    sites = tissue_source_site(table["case_id"])
    y = table["basal"].fillna(0).astype(int)
    splits = list(PatientStratifiedKFold(5, random_state=0).split_three(bags, y, groups=sites))
    write_splits(tmp_path, splits, bags)
    back = read_splits(tmp_path, bags)
    assert lists(back) == lists(splits)
    for split in back:
        assert sum(len(set(sites[part])) for part in split) == len(set(sites)) == 35
