"""Predictions in every shape that the field writes: row V8."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from looper.edges.datasets.predictions import read_predictions
from looper.errors import BadInput
from looper.records.foreign import Prediction
from looper.records.task import Task

Suite = tuple[tuple[Task, ...], dict[str, Path]]


@pytest.fixture
def tasks(micro: Suite) -> dict[str, Task]:
    return {task.instance_id: task for task in micro[0]}


@pytest.fixture
def rows(tasks: dict[str, Task]) -> list[dict[str, Any]]:
    return [
        {"instance_id": name, "model_name_or_path": "m", "model_patch": f"patch of {name}\n"}
        for name in list(tasks)[:2]
    ]


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def by_id(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["instance_id"]: row for row in rows}


SHAPES: dict[str, Callable[[list[dict[str, Any]]], str | bytes]] = {
    "lines": jsonl,
    "lines of Windows": lambda rows: jsonl(rows).replace("\n", "\r\n"),
    "lines with blank ones": lambda rows: "\n" + jsonl(rows).replace("\n", "\n \n\t\n"),
    "no final line end": lambda rows: jsonl(rows).rstrip(),
    "list": json.dumps,
    "list over lines": lambda rows: json.dumps(rows, indent=2),
    "by id": lambda rows: json.dumps(by_id(rows)),
    "by id over lines": lambda rows: json.dumps(by_id(rows), indent=4),
    "by id, id said once": lambda rows: json.dumps(
        {
            row["instance_id"]: {key: value for key, value in row.items() if key != "instance_id"}
            for row in rows
        }
    ),
    "byte order mark": lambda rows: "\ufeff" + jsonl(rows),
    "list behind a byte order mark": lambda rows: "\ufeff" + json.dumps(rows),
    "packed by gzip": lambda rows: gzip.compress(jsonl(rows).encode()),
    "list behind a byte order mark, packed": lambda rows: gzip.compress(
        b"\xef\xbb\xbf" + json.dumps(rows).encode()
    ),
}


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p"])
@pytest.mark.parametrize("shape", SHAPES)
def test_v8_every_shape_holds_the_same_whatever_the_file_is_called(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]], shape: str, name: str
) -> None:
    written = SHAPES[shape](rows)
    (tmp_path / name).write_bytes(written.encode() if isinstance(written, str) else written)
    assert read_predictions(tmp_path / name, tasks) == expected(rows)


def expected(rows: list[dict[str, Any]]) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(instance_id=row["instance_id"], model="m", patch=row["model_patch"]) for row in rows
    )


def test_v8_folders_of_agents_are_read(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]]
) -> None:
    """SWE-agent's file for each task, or the one file that it or mini-swe-agent puts beside its trajectories."""
    for row in rows:
        (tmp_path / row["instance_id"]).mkdir()
        (tmp_path / row["instance_id"] / f"{row['instance_id']}.pred").write_text(json.dumps(row, indent=1))
    assert set(read_predictions(tmp_path, tasks)) == set(expected(rows))
    (tmp_path / "preds.json").write_text(json.dumps(by_id(rows)))
    assert read_predictions(tmp_path, tasks) == expected(rows)
    (tmp_path / "all_preds.jsonl").write_text(jsonl(rows[::-1]))
    assert read_predictions(tmp_path, tasks) == expected(rows)


@pytest.mark.parametrize("whole", ["preds.json", "all_preds.jsonl"])
def test_v8_of_two_files_in_a_folder_that_say_different_things_none_is_passed_over(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]], whole: str
) -> None:
    (tmp_path / whole).write_text(jsonl(rows[:1]))
    other = tmp_path / f"{rows[1]['instance_id']}.pred"
    other.write_text(json.dumps(rows[1]))
    with pytest.raises(BadInput, match=rf"{whole} beside {other.name}, and these are not .* Name the one"):
        read_predictions(tmp_path, tasks)
    other.unlink()
    assert read_predictions(tmp_path, tasks) == expected(rows[:1])
    another = {"preds.json": "all_preds.jsonl", "all_preds.jsonl": "preds.json"}[whole]
    (tmp_path / another).write_text(jsonl([rows[0] | {"model_patch": "another"}]))
    with pytest.raises(BadInput, match=r"preds\.json beside all_preds\.jsonl, and these are not") as refused:
        read_predictions(tmp_path, tasks)
    assert "\n" not in str(refused.value)


def test_v8_a_prediction_that_stands_under_the_name_of_another_task_is_given_to_neither(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]]
) -> None:
    first, second = (row["instance_id"] for row in rows)
    said = f'what stands there is for "{second}"; one of the two names is wrong'
    (tmp_path / "p.json").write_text(json.dumps({first: rows[1]}))
    with pytest.raises(BadInput, match=f'p.json: "{first}": {said}'):
        read_predictions(tmp_path / "p.json", tasks)
    (tmp_path / "apart").mkdir()
    (tmp_path / "apart" / f"{first}.pred").write_text(json.dumps(rows[1]))
    with pytest.raises(BadInput, match=f"{first}.pred: {said}"):
        read_predictions(tmp_path / "apart", tasks)
    (tmp_path / "apart" / f"{first}.pred").rename(tmp_path / "apart" / "mine.pred")
    assert read_predictions(tmp_path / "apart", tasks) == expected(rows[1:])


@pytest.mark.parametrize("model", [{"a": 1}, ["m"], 5, True])
def test_v8_a_model_whose_name_is_no_text_is_refused(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]], model: object
) -> None:
    (tmp_path / "p.jsonl").write_text(jsonl([rows[0] | {"model_name_or_path": model}]))
    with pytest.raises(BadInput, match="line 1: model_name_or_path is no text. Correct it"):
        read_predictions(tmp_path / "p.jsonl", tasks)


def test_v8_an_unknown_task_is_named_with_the_one_that_may_be_meant(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]]
) -> None:
    name = rows[0]["instance_id"]
    (tmp_path / "p.jsonl").write_text(jsonl([rows[0] | {"instance_id": f"{name} "}]))
    with pytest.raises(
        BadInput, match=rf'line 1: unknown task "{name} " \(did you mean {name}\?\)\. Correct'
    ):
        read_predictions(tmp_path / "p.jsonl", tasks)


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\x1e"])
def test_v8_only_a_line_feed_ends_a_line(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]], odd: str
) -> None:
    rows[0]["model_patch"] = f"+one{odd}two\n"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text = text.replace(json.dumps(odd)[1:-1], odd)
    assert odd in text
    (tmp_path / "p.jsonl").write_text(text, "utf-8")
    assert read_predictions(tmp_path / "p.jsonl", tasks) == expected(rows)


def test_v8_a_model_without_a_name_is_called_as_swe_bench_calls_it(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]]
) -> None:
    del rows[0]["model_name_or_path"]
    (tmp_path / "p.jsonl").write_text(jsonl(rows))
    assert [found.model for found in read_predictions(tmp_path / "p.jsonl", tasks)] == ["None", "m"]


def test_c2_bytes_and_half_characters_of_a_patch_are_kept(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]]
) -> None:
    text = jsonl(rows).replace("patch of", "\\ud83d", 1).encode().replace(b"patch of", b"\xff", 1)
    (tmp_path / "p.jsonl").write_bytes(text)
    first, second = read_predictions(tmp_path / "p.jsonl", tasks)
    assert first.patch.startswith("\ud83d") and second.patch.startswith("\udcff")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"\xff\xfe{\x00", "UTF-16"),
        (b"\xff\xfe\0\0{\0\0\0", "UTF-32"),
        ("{}".encode("utf-16-le"), "begins with NUL bytes, as text in UTF-16 does. Write it in UTF-8"),
        (gzip.compress(b"{}")[:-9], "cannot be unpacked: Compressed file ended before"),
        (b'{"instance_id": 5, "model_name_or_path": "m", "model_patch": ""}', 'line 1: unknown task "5"'),
        (b'{"instance_id": ["a"], "model_patch": ""}', "line 1: instance_id is no text"),
        (b"[1]", "entry 1: no object with instance_id and model_patch"),
        (b'[{"instance_id": "x"}]', "entry 1: without model_patch"),
        (b'{"a": {"model_patch": ""}}', '"a": unknown task "a"'),
        (b'{"a": "diff"}', '"a": no object'),
        (b'[\n  {"instance_id": 1,\n]', "not JSON"),
        (b'{"instance_id": "x"}\nno\n', "line 2: not JSON"),
        (b"[" * 100_000, "too deeply nested"),
        (b'{"a": {"model_patch": ""}, "a": {"model_patch": "x"}}', 'line 1: "a" stands in one object twice'),
        (b'{\n"a": {"model_patch": ""},\n"a": {}}', '"a" stands in one object twice'),
        (
            json.dumps({"instance_id": "x" * 1000, "model_patch": ""}).encode(),
            f'line 1: unknown task "{"x" * 100}"…. Correct',
        ),
        (b'\n{\n"instance_id": "x"\n}', "line 2: without model_patch"),
        (b"[]", "holds no predictions"),
        (b"{}", "holds no predictions"),
        (b"", "holds no predictions"),
    ],
)
def test_v8_what_cannot_be_read_is_named_by_its_place_in_one_line(
    tmp_path: Path, tasks: dict[str, Task], written: bytes, said: str
) -> None:
    (tmp_path / "p.json").write_bytes(written)
    with pytest.raises(BadInput) as refused:
        read_predictions(tmp_path / "p.json", tasks)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_v8_a_second_one_for_a_task_is_named_with_the_first(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]]
) -> None:
    (tmp_path / "p.json").write_text(json.dumps([*rows, rows[0]]))
    with pytest.raises(
        BadInput, match=f"entry 3: {rows[0]['instance_id']} of m a second time, after entry 1"
    ):
        read_predictions(tmp_path / "p.json", tasks)


def test_a_folder_without_predictions_is_told_what_it_should_hold(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]]
) -> None:
    (tmp_path / "logs" / rows[0]["instance_id"]).mkdir(parents=True)
    (tmp_path / "logs" / rows[0]["instance_id"] / "patch.diff").write_text("diff")
    (tmp_path / "predictions.jsonl").write_text(jsonl(rows))
    with pytest.raises(BadInput, match=r"a folder with preds\.json, all_preds\.jsonl or \*\.pred files\."):
        read_predictions(tmp_path, tasks)


def test_v8_one_prediction_over_several_lines_is_read(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]]
) -> None:
    (tmp_path / "p.json").write_text(json.dumps(rows[0], indent=2))
    assert read_predictions(tmp_path / "p.json", tasks) == expected(rows[:1])


def test_v8_files_that_each_begin_with_a_byte_order_mark_can_be_joined(
    tmp_path: Path, tasks: dict[str, Task], rows: list[dict[str, Any]]
) -> None:
    (tmp_path / "p.jsonl").write_text("".join(f"\ufeff{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert read_predictions(tmp_path / "p.jsonl", tasks) == expected(rows)


@pytest.mark.parametrize(
    "put",
    [lambda path: path.symlink_to("/nonexistent"), Path.mkdir, os.mkfifo],
    ids=["a dead link", "a folder", "a pipe"],
)
def test_v8_what_is_no_file_is_named_in_one_line(
    tmp_path: Path, tasks: dict[str, Task], put: Callable[[Path], None]
) -> None:
    put(tmp_path / "x.pred")
    with pytest.raises(BadInput, match=r"/x\.pred (cannot be read|is no regular file)"):
        read_predictions(tmp_path, tasks)
