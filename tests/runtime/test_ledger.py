"""Folders that are checked against the list of their files."""

from __future__ import annotations

import hashlib

import pytest

from hfssl.errors import DamagedFile
from hfssl.runtime.ledger import SEAL, check_files, check_seal, files_of, seal, sealed_files


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "config.json").write_text("abc")
    (tmp_path / "below" / "weights").write_bytes(bytes(range(200)))
    seal(tmp_path)
    return tmp_path


def test_the_list_has_size_and_digest_of_each_file_but_itself(folder):
    expected = {"size": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}  # sha256sum
    assert sealed_files(folder) == files_of(folder)
    assert sealed_files(folder)["config.json"] == expected
    assert list(sealed_files(folder)) == ["below/weights", "config.json"]
    assert sealed_files(folder)["below/weights"]["sha256"] == hashlib.sha256(bytes(range(200))).hexdigest()


def test_what_is_not_listed_is_not_looked_at(folder):
    (folder / "notes.txt").write_text("mine")
    check_seal(folder)
    check_seal(folder / "below")  # has no list


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda folder: (folder / "below" / "weights").unlink(), "found no file"),
        (lambda folder: (folder / "config.json").write_text("ab"), "found 2 bytes, not 3"),
        (lambda folder: (folder / "config.json").write_text("abd"), "found another content"),
        (lambda folder: (folder / SEAL).write_text("{}"), "found something else than a JSON object with a checksum"),
        (lambda folder: (folder / SEAL).write_text((folder / SEAL).read_text().replace("3", "4")), "checksum"),
    ],
)
def test_damage_is_one_sentence(folder, damage, found):
    damage(folder)
    with pytest.raises(DamagedFile, match=found) as raised:
        check_seal(folder)
    assert "\n" not in str(raised.value)


def test_files_of_other_places_are_compared_by_a_given_list(folder, tmp_path):
    check_files(folder, {"config.json": files_of(folder)["config.json"]})
    with pytest.raises(DamagedFile, match="gone.json"):
        check_files(folder, {"gone.json": {"size": 1, "sha256": ""}})
