"""Files are whole or as they were before: by names, by errors in the middle, and by what is read back."""

from __future__ import annotations

import math
import os
import stat

import numpy as np
import pytest

from hfssl.errors import DamagedFile
from hfssl.runtime.files import (
    append_json_line,
    atomic_directory,
    atomic_file,
    is_leftover,
    make_folder,
    read_arrays,
    read_checked_json,
    read_json_lines,
    sha256_of,
    write_arrays,
    write_checked_json,
    write_json,
    write_json_lines,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Stopped(Exception):
    """Ends the writing in the middle."""


def stopped(writing, write) -> None:
    """Writes by `write` within the block `writing`, which then ends with an error."""
    with writing as temporary:
        write(temporary)
        raise Stopped


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    path = tmp_path / "below" / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    with pytest.raises(Stopped):
        stopped(atomic_file(path), lambda temporary: temporary.write_text("sec"))
    assert path.read_text() == "first"
    assert names(path.parent) == ["a.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(Stopped):
        stopped(atomic_directory(path), lambda temporary: (temporary / "new").touch())
    assert names(path) == ["old"]
    with atomic_directory(path) as temporary:
        (temporary / "new").touch()
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["model"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_json_is_valid_or_is_not_written(tmp_path):
    write_json(tmp_path / "a.json", {"名": [1, None]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "名": [\n    1,\n    null\n  ]\n}\n'
    for write, value in ((write_json, math.nan), (write_json_lines, [{"a": 1}, {"a": math.inf}])):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write(tmp_path / "a.json", value)
    assert (tmp_path / "a.json").read_text(encoding="utf-8").startswith("{")
    assert names(tmp_path) == ["a.json"]


def test_lines_come_back_whatever_characters_they_hold(tmp_path):
    path = tmp_path / "rounds.jsonl"
    assert read_json_lines(path) == []
    values = [
        {"text": "two\nlines\u2028and\x85more"},
        {"number": 2.5},
        {"of": {"1": [None]}},
    ]  # str.splitlines() would cut the first one
    write_json_lines(path, values[:1])
    for value in values[1:]:
        append_json_line(path, value)
    assert read_json_lines(path) == values


def test_arrays_come_back_with_their_types_and_without_pickles(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, {"rows": np.arange(3, dtype=np.int32), "weight": 0.5, "missing": None})
    found = read_arrays(path)
    assert found.keys() == {"rows", "weight"}
    assert found["rows"].dtype == np.int32
    assert found["rows"].tolist() == [0, 1, 2]
    assert float(found["weight"]) == 0.5
    np.savez(path, pickled=np.array([{}], dtype=object))
    with pytest.raises(DamagedFile, match="Expected .*a.npz' as hfssl wrote it, found a file that cannot be read"):
        read_arrays(path)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npz")


def test_the_file_of_another_place_is_refused(tmp_path):
    for place in ("fold-0", "fold-1"):
        write_arrays(tmp_path / "run" / place / "votes.npz", {"votes": np.ones(2)})
    os.replace(tmp_path / "run/fold-1/votes.npz", tmp_path / "run/fold-0/votes.npz")
    with pytest.raises(
        DamagedFile, match=r"fold-0/votes.npz' as hfssl wrote it, found the file of 'fold-1/votes.npz'"
    ):
        read_arrays(tmp_path / "run/fold-0/votes.npz")
    write_arrays(tmp_path / "run" / "fold-0" / "votes.npz", {"votes": np.ones(2)})
    os.replace(tmp_path / "run", tmp_path / "renamed")  # a run may move
    assert read_arrays(tmp_path / "renamed/fold-0/votes.npz").keys() == {"votes"}


def test_every_damaged_byte_of_arrays_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, {"votes": np.arange(5, dtype=np.float32), "weight": 0.5})
    whole, first, noticed = path.read_bytes(), read_arrays(path), 0
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        try:
            found = read_arrays(path)
        except DamagedFile:
            noticed += 1
        else:
            assert found.keys() == first.keys()
            assert all(np.array_equal(found[name], first[name]) for name in first)
    assert noticed > len(whole) // 6
    path.write_bytes(whole[:-30])
    with pytest.raises(DamagedFile):
        read_arrays(path)


def test_json_with_a_checksum(tmp_path):
    path = tmp_path / "a.json"
    value = {"名": [1, None, 0.1], "of": {1: "one"}}
    write_checked_json(path, value)
    assert read_checked_json(path) == {"名": [1, None, 0.1], "of": {"1": "one"}}
    text = path.read_text()
    for damaged in (text.replace("0.1", "0.2").encode(), text[:40].encode(), b"[]", b"{}", b"", b"\xff"):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile, match="Expected .*a.json' as hfssl wrote it, found"):
            read_checked_json(path)
    write_json_lines(path, [{"round": 0}, {"round": 1}])
    path.write_text(path.read_text().replace('"round": 1', '"round": 2'))
    with pytest.raises(DamagedFile, match="checksum"):
        read_json_lines(path)
    path.write_text('{"round": 0')
    with pytest.raises(DamagedFile, match="not JSON"):
        read_json_lines(path)


def test_leftovers_of_hfssl_and_files_that_look_like_them(tmp_path):
    with atomic_file(tmp_path / "settings.json") as temporary:
        assert is_leftover(temporary)
        assert is_leftover(temporary, ["settings.json"])
        assert not is_leftover(temporary, ["splits"])
    for name in (".notes.tmp", ".backup.2024.tmp", "settings.json", ".settings.json.ABCDEFGH.tmp"):
        assert not is_leftover(tmp_path / name)


def test_the_digest_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # printf abc | sha256sum
    assert sha256_of(tmp_path / "a") == expected


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that even the superuser cannot write to")
def test_a_folder_that_cannot_be_written_to_is_named():
    for attempt, folder in (
        (lambda: make_folder("/proc/hfssl"), "/proc/hfssl"),
        (lambda: write_json("/proc/a.json", 1), "/proc"),
    ):
        with pytest.raises(PermissionError, match="not writable") as refused:
            attempt()
        assert refused.value.filename == folder
