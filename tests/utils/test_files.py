import errno
from pathlib import Path

import pytest

import whet
from folders import tree
from whet.errors import OutputNotWritten
from whet.utils.files import digest, json_digest, write_text


def test_texts_are_replaced_whole(tmp_path: Path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new – ½")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new – ½"
    assert list(tree(tmp_path)) == ["a.txt"]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_text(tmp_path / "a.txt", "old")

    def failing(self: Path, _content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(
        OutputNotWritten, match=r"a\.txt must be writable to its end, but .*No space left.*; free some space"
    ):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_bytes() == b"old"
    assert list(tree(tmp_path)) == ["a.txt"]


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digests_are_the_sha256_of_the_standard(tmp_path: Path):
    """FIPS 180-4 gives the values; a file, bytes and pieces of bytes are one thing."""
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "empty").touch()
    assert digest(b"abc") == digest(tmp_path / "abc") == digest(iter([b"a", b"", b"bc"])) == ABC
    assert digest(b"") == digest(tmp_path / "empty") == digest([]) == EMPTY


def test_json_values_have_one_digest_whatever_the_order_of_their_keys():
    assert json_digest({"a": [1, 2.5], "b": "é"}) == json_digest({"b": "é", "a": [1, 2.5]}) != json_digest({"a": 1})
    assert json_digest({}) == digest(b"{}")


def test_nothing_else_hashes():
    folder = Path(whet.__file__).parent
    assert [path for path in folder.rglob("*.py") if "hashlib" in path.read_text(encoding="utf-8")] == [
        folder / "utils" / "files.py"
    ]
