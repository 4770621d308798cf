"""The data directory: one `run` at a time, and a secret that is made once and never a weak one."""

from pathlib import Path

import pytest

from orderkeep.data_directory import (
    DataDirectoryError,
    lock_data_directory,
    prepare_data_directory,
    read_or_make_secret,
)

DRAWN = bytes(range(32))


def test_a_missing_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    prepare_data_directory(tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DataDirectoryError, match="cannot be written") as told:
        prepare_data_directory(tmp_path / "file" / "data")

    assert "\n" not in str(told.value)


def test_a_directory_is_held_by_one_until_it_lets_go(tmp_path: Path) -> None:
    lock = lock_data_directory(tmp_path)

    with pytest.raises(DataDirectoryError, match="in use by another `orderkeep run`"):
        lock_data_directory(tmp_path)

    lock.close()
    lock_data_directory(tmp_path).close()


def test_a_lock_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()

    with pytest.raises(DataDirectoryError, match="cannot be locked"):
        lock_data_directory(tmp_path)


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    secret = read_or_make_secret(tmp_path, drawn=DRAWN)

    assert secret == DRAWN.hex()
    assert read_or_make_secret(tmp_path, drawn=bytes(32)) == secret
    assert (tmp_path / "jwt-secret").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["jwt-secret"]


@pytest.mark.parametrize("weak", ["", "abc", "k" * 31, " " * 64])
def test_a_secret_too_short_to_sign_with_is_refused(tmp_path: Path, weak: str) -> None:
    (tmp_path / "jwt-secret").write_text(weak)

    with pytest.raises(DataDirectoryError, match="shorter than 32 bytes"):
        read_or_make_secret(tmp_path, drawn=DRAWN)


def test_a_file_in_the_place_of_the_directory_is_told_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    with pytest.raises(DataDirectoryError, match="is a file, not a directory"):
        prepare_data_directory(tmp_path / "data")
