"""What `looper doctor` says of a machine, from the machine itself."""

from pathlib import Path

from looper.edges.doctor import working_trees


def test_working_trees_are_ok_where_files_are_made_quickly(tmp_path: Path) -> None:
    (found,) = working_trees(tmp_path / "not" / "there", tmp_path, slow_ms=1e9)
    assert (
        found.level == "ok" and "ms to make and remove a file" in found.found and not list(tmp_path.iterdir())
    )


def test_memory_that_is_no_quicker_is_not_recommended(tmp_path: Path) -> None:
    (found,) = working_trees(tmp_path, tmp_path / "absent", slow_ms=0.0)
    assert found.level == "ok" and not found.fix


def test_memory_that_cannot_be_written_to_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    (found,) = working_trees(tmp_path, Path("/proc"), slow_ms=0.0)
    assert found.level == "ok" and not found.fix


def test_a_place_that_cannot_be_written_to_is_named() -> None:
    (found,) = working_trees(Path("/proc/looper"), Path("/proc"), slow_ms=0.0)
    assert found.level == "note" and "/proc" in found.found
