from pathlib import Path

import pytest
import torch

from pixel_spotter.errors import UserError
from pixel_spotter.files import atomic_write, read_tensors, write_text


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


def test_a_full_disk_says_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(path):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(path)


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    torch.save({"weight": torch.tensor([0.1, -2.0]), "epoch": 3}, tmp_path / "x.ckpt")
    content = read_tensors(tmp_path / "x.ckpt")
    assert content["weight"].tolist() == torch.tensor([0.1, -2.0]).tolist()
    assert content["epoch"] == 3


def test_what_is_no_dictionary_of_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with pytest.raises(UserError, match=r"there is no file .*x\.ckpt"):
        read_tensors(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(UserError, match=r"x\.ckpt holds no checkpoint"):
        read_tensors(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"x\.ckpt (was refused|is damaged)"):
        read_tensors(path)
