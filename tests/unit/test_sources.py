"""Dataset rows: every format, and every way in which a source can fail."""

import hashlib
import json
import sys

import pytest

from rlhf.core.errors import DataError
from rlhf.data import sources

ROWS = [{"question": "1+1?", "n": 2, "tags": ["a", "b"]}, {"question": "naïve\u2028?", "n": None, "tags": []}]


def read(source, **kwargs):
    return sources.rows(str(source), **({"split": "train", "where": "task.train"} | kwargs))


def test_jsonl_skips_blank_lines_and_splits_on_line_feeds_only(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n", encoding="utf-8")
    assert read(path) == ROWS


def test_json_list_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(ROWS), encoding="utf-8-sig")
    assert read(path) == ROWS


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "d.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS * 1000), path)
    assert read(path) == ROWS * 1000


def test_a_stream_reads_no_further_than_it_is_asked(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("\ufeff" + json.dumps(ROWS[0]) + "\n{broken", encoding="utf-8")
    found = sources.stream(str(path), split="train", where="data")
    assert next(found) == ROWS[0]
    with pytest.raises(DataError, match=r"d\.jsonl, line 2: is not JSON"):
        next(found)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", '{"a": 1}\n\n{"a": \n', r"d\.jsonl, line 3: is not JSON.*\n.*one JSON object per line"),
        ("d.jsonl", '{"a": 1}\n[2]\n', r"d\.jsonl, line 2: is of type list, not an object"),
        ("d.jsonl", "", r"^task\.train \(.*d\.jsonl\): the dataset is empty"),
        ("d.json", "[]", r"^task\.train \(.*d\.json\): the dataset is empty"),
        ("d.json", '{"a": 1}', r"d\.json: holds one dict instead of a list"),
        ("d.json", '{"a": 1}\n{"a": 2}', r"d\.json, line 2: is not JSON.*\n.*suffix \.jsonl"),
        ("d.json", '[{"a": 1}, 5]', r"d\.json, item 2: is of type int, not an object"),
        ("d.parquet", "PAR?", r"d\.parquet: is not readable as Parquet"),
        ("d.csv", "a,b", r"'\.csv' is not a known format\n.*\.jsonl, \.json or \.parquet"),
    ],
)
def test_broken_files_are_named_with_the_place_and_the_fix(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "d.jsonl").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DataError, match=r"d\.jsonl: is not UTF-8"):
        read(tmp_path / "d.jsonl")


@pytest.mark.parametrize("source", ["data/gone.jsonl", "./gone", "gone.parquet", "a/b/c"])
def test_a_missing_file_is_not_taken_for_a_hub_dataset(source):
    with pytest.raises(DataError, match=r"^task\.train \(.*\): no such file; looked in /"):
        read(source)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path)


def test_a_hub_dataset_is_loaded_by_id_subset_and_split(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_list([{"a": 1}, {"a": 2}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read("org/name", split="test", subset="main") == [{"a": 1}, {"a": 2}]
    assert read("name") == [{"a": 1}, {"a": 2}]
    assert asked == [(("org/name", "main"), {"split": "test"}), (("name", None), {"split": "train"})]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'org/name' on the Hub\nmore"),
        ValueError("Unknown split"),
        RuntimeError("scripts"),
    ],
)
def test_a_hub_failure_is_one_readable_error(monkeypatch, error):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    first_line = str(error).splitlines()[0]
    with pytest.raises(DataError) as caught:
        read("org/name")
    assert caught.value.where == "task.train (org/name)"
    assert caught.value.problem.endswith(f"(subset '', split 'train'): {first_line}")
    assert "network" in caught.value.fix
    assert datasets.is_progress_bar_enabled()


def test_without_the_datasets_package_the_fix_is_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"need the `datasets` package\n.*pip install 'rlhf\[datasets\]'"):
        read("org/name")


def test_the_fingerprint_is_the_hash_of_the_bytes(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    digest = hashlib.sha256(b'{"a": 1}\n').hexdigest()
    assert sources.fingerprint(str(path), where="task.train") == f"sha256:{digest}"
    assert sources.fingerprint("openai/gsm8k", where="task.train") == "hub:openai/gsm8k"
    with pytest.raises(DataError, match="no such file"):
        sources.fingerprint("gone.jsonl", where="task.train")
