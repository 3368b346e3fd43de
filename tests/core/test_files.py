"""Files are opened in one way (`fastconv._core.files`); what claims too much is a row of the reliability board."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fastconv import ConvError
from fastconv._core import files


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (0, 5), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "?", "<i8", "<c8", "<U3"])
def test_arrays_are_numpys(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    path, array = tmp_path / "a.npy", np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    for stored in (array, np.array(array, order="F")):
        np.save(path, stored)
        found = files.read_npy(path)
        np.testing.assert_array_equal(found, array, strict=True)
        assert found.flags.writeable
    for version in ((1, 0), (2, 0), (3, 0)):
        with path.open("wb") as file:
            np.lib.format.write_array(file, array, version)
        np.testing.assert_array_equal(files.read_npy(path), array, strict=True)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"header|bytes"):
        files.read_npy(path)


def test_what_is_no_regular_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConvError, match="is a folder"):
        files.open_regular(tmp_path / "folder")
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "none")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to(tmp_path / "pipe")
        for name in ("pipe", "link"):
            with pytest.raises(ConvError, match="is a named pipe"):
                files.open_regular(tmp_path / name)
    (tmp_path / "text").write_text("naïve", encoding="utf-8")
    assert files.read_text(tmp_path / "text", 6) == "naïve"
    with pytest.raises(ConvError, match="6 bytes, more than the 5"):
        files.read_text(tmp_path / "text", 5)


def test_a_part_of_a_file_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    with files.open_regular(path) as file:
        part = files.Segment(file, 10, 20)
        with part.opened() as window:
            assert window.read(5) == bytes(range(10, 15)) and window.tell() == 5
            assert window.seek(-3, os.SEEK_END) == 17 and window.read() == bytes(range(27, 30))
            assert window.read(4) == b""
            assert window.seek(2) == 2 and window.seek(3, os.SEEK_CUR) == 5
        for begin, count in ((-1, 3), (18, 3), (0, -1), (0, 1 << 60)):
            with pytest.raises(ValueError, match="not in the file"):
                part.read(begin, count)
        with pytest.raises(ValueError, match="not in the file"):
            files.Segment(file, 90, 20).read(0, 4)
        with pytest.raises(ValueError, match="check sum"):
            files.Segment(file, 0, 4, 1).read(0, 4)
