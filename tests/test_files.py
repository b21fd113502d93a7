from pathlib import Path

import pytest

from pixel_spotter.files import atomic_write, write_text


def test_written_whole_under_its_name_and_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "new/folder/file.txt", "µ\n")
    assert (tmp_path / "new/folder/file.txt").read_bytes() == "µ\n".encode()
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["file.txt"]


def test_nothing_is_under_the_name_before_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent, "renaming across file systems is not atomic"
        assert temporary.suffix == ".json", "matplotlib tells formats by it"
    assert path.read_text() == "half"


def test_a_reader_of_the_old_file_goes_on_reading_it(tmp_path: Path) -> None:
    """Renaming replaces the file; writing into it would mix old and new."""
    path = tmp_path / "figures.json"
    write_text(path, "old and whole")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old and whole"
    assert path.read_text() == "new"


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half of the n")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
