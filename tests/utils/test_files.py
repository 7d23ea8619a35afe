import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

import whet
from whet.errors import OutputExists, OutputNotWritten
from whet.utils.files import check_output, digest, json_digest, new_folder, write_text

as_root = hasattr(os, "geteuid") and os.geteuid() == 0


def tree(folder: Path) -> dict[str, str]:
    """Every file below, hidden ones too, with what it holds; folders end in a slash."""
    return {
        str(path.relative_to(folder)) + ("/" if path.is_dir() else ""): "" if path.is_dir() else path.read_text()
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def full(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    (folder / "old.txt").write_text("old")
    (folder / "sub" / "deep.txt").write_text("deep")
    return folder


def test_the_folder_appears_whole_when_the_block_ends(tmp_path: Path):
    place = tmp_path / "a" / "b" / "out"
    with new_folder(place, overwrite=False) as draft:
        (draft / "one.txt").write_text("1")
        assert not place.exists()
        assert draft.parent == place.parent, "a rename is atomic within one file system only"
    assert tree(place) == {"one.txt": "1"}
    assert [path.name for path in place.parent.iterdir()] == ["out"]


def test_an_empty_folder_may_be_written(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out", overwrite=False) as draft:
        (draft / "one.txt").write_text("1")
    assert tree(tmp_path) == {"out/": "", "out/one.txt": "1"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_a_block_that_raises_leaves_nothing(error: type[BaseException], tmp_path: Path):
    with pytest.raises(error), new_folder(tmp_path / "out", overwrite=False) as draft:
        (draft / "one.txt").write_text("1")
        raise error
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_a_block_that_raises_leaves_the_old_folder_as_it_was(error, full: Path, tmp_path: Path):
    before = tree(tmp_path)
    with pytest.raises((ValueError, KeyboardInterrupt, OSError)), new_folder(full, overwrite=True) as draft:
        (draft / "one.txt").write_text("1")
        raise error
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device")], ids=repr
)
def test_a_full_disk_says_so(error: Exception, tmp_path: Path):
    message = r"out must be writable to its end, but .*No space left on device; free some space or name another"
    with pytest.raises(OutputNotWritten, match=message), new_folder(tmp_path / "out", overwrite=False) as draft:
        (draft / "one.txt").write_text("1")
        raise error
    assert tree(tmp_path) == {}


def test_refusals_from_within_keep_their_words(tmp_path: Path):
    for error in (OutputExists("mine"), OutputNotWritten("mine")):
        with pytest.raises(type(error), match=r"^mine$"), new_folder(tmp_path / "out", overwrite=False):
            raise error


def test_overwriting_replaces_everything(full: Path, tmp_path: Path):
    with new_folder(full, overwrite=True) as draft:
        (draft / "new.txt").write_text("new")
        assert (full / "old.txt").read_text() == "old", "the old one stays until the new one is whole"
    assert tree(tmp_path) == {"out/": "", "out/new.txt": "new"}


def test_a_rename_that_fails_puts_the_old_folder_back(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before, rename = tree(tmp_path), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputNotWritten, match="Input/output error"), new_folder(full, overwrite=True) as draft:
        (draft / "new.txt").write_text("new")
    assert tree(tmp_path) == before


def test_a_full_folder_is_refused_without_overwrite(full: Path):
    message = r"the output folder must be new or empty, but .*out holds files; name another or give --overwrite"
    with pytest.raises(OutputExists, match=message):
        check_output(full, overwrite=False)
    with pytest.raises(OutputExists, match=message), new_folder(full, overwrite=False):
        raise AssertionError("the block must not run")
    check_output(full, overwrite=True)


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("folder", [".", "..", "../..", "/", "sub/.."])
def test_the_working_folder_and_its_parents_are_refused(
    folder: str, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = tmp_path / "project"
    (here / "sub").mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(OutputExists, match=r"must be one of its own, but got .*, which holds .*; name another"):
        check_output(Path(folder), overwrite=overwrite)


def test_folders_with_inputs_are_refused(full: Path):
    for kept in (full, full / "sub", full / "old.txt"):
        with pytest.raises(OutputExists, match="must be one of its own"):
            check_output(full, overwrite=True, inputs=(kept,))
    check_output(full, overwrite=True, inputs=(full.parent / "other", Path("name/on-a-hub")))


def test_links_to_an_input_are_refused(full: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(full)
    with pytest.raises(OutputExists, match="must be one of its own"):
        check_output(tmp_path / "link", overwrite=True, inputs=(full,))


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_is_refused(overwrite: bool, tmp_path: Path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputExists, match=r"the output must be a folder, but .*file is a file; name another"):
        check_output(tmp_path / "file", overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_place_below_a_file_is_refused_before_any_work(tmp_path: Path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises((OutputExists, OutputNotWritten)):
        check_output(tmp_path / "file" / "out", overwrite=False)


@pytest.mark.skipif(as_root, reason="root may write anywhere")
def test_a_place_that_may_not_be_written_is_refused(tmp_path: Path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputNotWritten, match=r"the output folder must be writable, but .* is not; name another"):
            check_output(tmp_path / "a" / "out", overwrite=False)
    finally:
        tmp_path.chmod(0o700)


def test_texts_are_replaced_whole(tmp_path: Path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new – ½")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new – ½"
    assert list(tree(tmp_path)) == ["a.txt"]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_text(tmp_path / "a.txt", "old")

    def failing(self: Path, _text: str, **_options) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", failing)
    with pytest.raises(OutputNotWritten, match=r"a\.txt must be writable, but .*No space left.*; free some space"):
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
