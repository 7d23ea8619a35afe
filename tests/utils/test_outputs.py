import errno
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from safetensors import SafetensorError

from folders import tree
from whet.errors import OutputExists, OutputNotWritten
from whet.utils import outputs
from whet.utils.outputs import adding_to, check_files, check_output, claimed, files_of_others, new_folder

as_root = hasattr(os, "geteuid") and os.geteuid() == 0
FIXTURES = Path(__file__).parents[1] / "fixtures" / "written_by_0_1_0"


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A folder that whet wrote, a search's."""
    folder = tmp_path / "out"
    (folder / "trials").mkdir(parents=True)
    (folder / "search.json").write_text("old")
    (folder / "trials" / "0000.json").write_text("deep")
    return folder


def write(folder: Path, *, overwrite: bool = False) -> None:
    with new_folder(folder, overwrite=overwrite) as draft:
        (draft / "new.txt").write_text("new")


NEW = {"out": b"", "out/new.txt": b"new"}


def test_the_folder_appears_whole_when_the_block_ends(tmp_path: Path):
    place = tmp_path / "a" / "b" / "out"
    with new_folder(place, overwrite=False) as draft:
        (draft / "one.txt").write_text("1")
        assert not place.exists()
        assert draft.parent == place.parent, "a rename is atomic within one file system only"
    assert tree(place) == {"one.txt": b"1"}
    assert [path.name for path in place.parent.iterdir()] == ["out"]


def test_an_empty_folder_may_be_written(tmp_path: Path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert tree(tmp_path) == NEW


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("place", ["out", "a/b/out"])
def test_a_block_that_raises_leaves_nothing(error: type[BaseException], place: str, tmp_path: Path):
    with pytest.raises(error), new_folder(tmp_path / place, overwrite=False) as draft:
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


FAILURES = {
    OSError(errno.ENOSPC, "No space left on device"): "No space left on device; free some space or name another",
    OSError(errno.EDQUOT, "Disk quota exceeded"): "Disk quota exceeded; free some space or name another",
    SafetensorError("No space left on device (os error 28)"): r"\(os error 28\); free some space or name another",
    OSError(errno.EIO, "Input/output error"): "Input/output error; check its rights and its disk, or name another",
    FileNotFoundError(errno.ENOENT, "No such file"): "No such file; check its rights",
}


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_only_a_full_disk_is_told_to_be_one(error: Exception, tmp_path: Path):
    message = f"out must be writable to its end, but .*{FAILURES[error]}"
    with pytest.raises(OutputNotWritten, match=message), new_folder(tmp_path / "out", overwrite=False) as draft:
        (draft / "one.txt").write_text("1")
        raise error
    assert tree(tmp_path) == {}


def test_refusals_from_within_keep_their_words(tmp_path: Path):
    for error in (OutputExists("mine"), OutputNotWritten("mine")):
        with pytest.raises(type(error), match=r"^mine$"), new_folder(tmp_path / "out", overwrite=False):
            raise error


@pytest.mark.parametrize("exchanges", [True, False])
def test_overwriting_replaces_everything(exchanges, full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not exchanges:  # as on systems that cannot
        monkeypatch.setattr(outputs, "_exchange", lambda one, other: False)
    with new_folder(full, overwrite=True) as draft:
        (draft / "new.txt").write_text("new")
        assert (full / "search.json").read_text() == "old", "the old one stays until the new one is whole"
    assert tree(tmp_path) == NEW


def test_two_folders_are_exchanged_in_one_step(full: Path, tmp_path: Path):
    write(tmp_path / "other")
    assert outputs._exchange(full, tmp_path / "other")
    assert list(tree(full)) == ["new.txt"] and (tmp_path / "other" / "search.json").exists()
    assert not outputs._exchange(full, tmp_path / "nowhere")


def test_a_rename_that_fails_puts_the_old_folder_back(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before, rename = tree(tmp_path), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    monkeypatch.setattr(outputs, "_exchange", lambda one, other: False)
    with pytest.raises(OutputNotWritten, match="Input/output error"):
        write(full, overwrite=True)
    assert tree(tmp_path) == before


def test_a_full_folder_is_refused_without_overwrite(full: Path):
    message = r"the output folder must be new or empty, but .*out holds files; name another or give --overwrite"
    with pytest.raises(OutputExists, match=message):
        check_output(full, overwrite=False)
    with pytest.raises(OutputExists, match=message), new_folder(full, overwrite=False):
        raise AssertionError("the block must not run")
    check_output(full, overwrite=True)


# what may be replaced


@pytest.mark.parametrize("name", ["codebook", "dense", "measured", "search", "search/best"])
def test_folders_of_version_0_1_0_are_whets(name: str):
    assert files_of_others(FIXTURES / name) == []


def artifact(folder: Path) -> Path:
    folder.mkdir()
    manifest = {"files": {"config.json": "", "odd": ""}, "exports": {"x fp32": {"files": {"model.onnx": ""}}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for name in ("README.md", "measurements.jsonl", "config.json", "odd", "model.onnx", ".manifest.json.12.partial"):
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("name", ["t.csv", "notes.txt", "config.yaml", "models", ".config.json.partial"])
@pytest.mark.parametrize("marked", [True, False])
def test_files_of_others_are_never_deleted(name: str, marked: bool, tmp_path: Path):
    folder = artifact(tmp_path / "out") if marked else tmp_path / "out"
    (folder / name).mkdir(parents=True)
    before = tree(tmp_path)
    message = rf"only what whet wrote may be replaced, but .*out holds files of others: {name}; name another"
    for attempt in (check_output, write):
        with pytest.raises(OutputExists, match=message):
            attempt(folder, overwrite=True)
    assert tree(tmp_path) == before
    (folder / name).rmdir()
    write(folder, overwrite=True)
    assert tree(tmp_path) == NEW


@pytest.mark.parametrize("overwrite", [True, False])
def test_files_that_others_write_meanwhile_stay(overwrite: bool, tmp_path: Path):
    with pytest.raises(OutputExists), new_folder(tmp_path / "out", overwrite=overwrite):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
    assert tree(tmp_path) == {"out": b"", "out/notes.txt": b"mine"}


@pytest.mark.parametrize("manifest", ["", "[]", "{", '{"files": 3}', '{"exports": []}', "[" * 10**5])
def test_a_damaged_manifest_lists_nothing(manifest: str, tmp_path: Path):
    folder = artifact(tmp_path / "out")
    (folder / "manifest.json").write_text(manifest)
    assert files_of_others(folder) == ["config.json", "model.onnx", "odd"]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("folder", [".", "", "..", "../..", "/", "sub/.."])
def test_the_working_folder_and_its_parents_are_refused(
    folder: str, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = tmp_path / "project"
    (here / "sub").mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(OutputExists, match=r"must be one of its own, but got .*, which holds .*; name another"):
        check_output(Path(folder), overwrite=overwrite)


def test_folders_with_inputs_are_refused(full: Path):
    for kept in (full, full / "trials", full / "search.json"):
        for attempt in (check_output, claimed):
            with (
                pytest.raises(OutputExists, match="must be one of its own"),
                attempt(full, overwrite=True, inputs=(kept,)),
            ):
                pass
    check_output(full, overwrite=True, inputs=(full.parent / "other", Path("name/on-a-hub"), Path("x" * 300)))


def test_links_to_an_input_are_refused(full: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(full)
    with pytest.raises(OutputExists, match="must be one of its own"):
        check_output(tmp_path / "link", overwrite=True, inputs=(full,))


# places


def test_a_link_stays_and_leads_to_the_new_folder(full: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "dangling").symlink_to("elsewhere")
    write(tmp_path / "link", overwrite=True)
    write(tmp_path / "dangling")
    assert (tmp_path / "link").readlink() == Path("out") and tree(full) == {"new.txt": b"new"}
    assert (tmp_path / "dangling").readlink() == Path("elsewhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "elsewhere", "link", "out"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_is_refused(overwrite: bool, tmp_path: Path):
    (tmp_path / "file").write_text("kept")
    for place in ("file", "file/out"):
        with pytest.raises(OutputExists, match=r"the output must be a folder, but .*file is a file; name another"):
            check_output(tmp_path / place, overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "kept"


def loop(folder: Path) -> Path:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    return folder / "one"


PLACES = {
    "a loop of links": (loop, "must be a path that can be written, but .*one: Too many levels of symbolic links"),
    "below a loop": (lambda folder: loop(folder) / "out", "must be a path that can be written"),
    "a long name": (lambda folder: folder / ("x" * 256), r"must have a name of at most 231 bytes, but got 256 in xxx"),
    "too long for a draft": (lambda folder: folder / ("é" * 120), r"at most 231 bytes, but got 240 in ééé"),
    "a long parent": (lambda folder: folder / ("x" * 300) / "out", r"x\.\.\.|File name too long"),
    "a long path": (lambda folder: folder.joinpath(*["x" * 200] * 30), r"x\.\.\.: File name too long"),
    "no text": (lambda folder: folder / os.fsdecode(b"\xff\xfe"), r"plain text, .* but got '.*\\udcff\\udcfe'; name"),
    "two lines": (lambda folder: folder / "a\nb", r"plain text, without ends of lines, but got '.*a\\nb'; name"),
    "a control character": (lambda folder: folder / "a\x1b[31m", r"plain text"),
    "a null": (lambda folder: folder / "a\0b", r"plain text"),
    "/proc": (lambda folder: Path("/proc/whet/out"), r"/proc/whet/out must be writable.*; check its rights"),
    "right in /proc": (lambda folder: Path("/proc/whet"), r"/proc/whet must be writable.*; check its rights"),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_where_nothing_can_be_written_are_refused_before_any_work(name: str, tmp_path: Path):
    make, message = PLACES[name]
    place = make(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(OutputNotWritten, match=message), claimed(place, overwrite=True):
        raise AssertionError("the block must not run")
    with pytest.raises(OutputNotWritten, match=message), adding_to(place):
        raise AssertionError("the block must not run")
    assert tree(tmp_path) == before


def test_a_disk_of_its_own_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It cannot be renamed, as the volumes of containers."""
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "out")
    with pytest.raises(OutputNotWritten, match=r"must not be a disk of its own, but .*out is; name a folder inside it"):
        check_output(tmp_path / "out", overwrite=False)
    check_output(tmp_path / "out" / "model", overwrite=False)


@pytest.mark.skipif(as_root, reason="root may write anywhere")
def test_a_place_that_may_not_be_written_is_refused(tmp_path: Path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputNotWritten, match=r"the output folder must be writable, but .* is not; name another"):
            check_output(tmp_path / "a" / "out", overwrite=False)
    finally:
        tmp_path.chmod(0o700)


# one writer


@pytest.mark.parametrize("writer", [lambda place: claimed(place, overwrite=True), adding_to], ids=["new", "adding"])
def test_a_second_writer_is_refused(writer, full: Path, tmp_path: Path):
    """Threads of one process are as different as processes: each holds the lock by its own descriptor."""
    refused: list[str] = []

    def attempt() -> None:
        for second in (
            lambda: claimed(full, overwrite=True),
            lambda: adding_to(full),
            lambda: claimed(link, overwrite=True),
        ):
            try:
                with second():
                    raise AssertionError("two writers")
            except OutputExists as error:
                refused.append(str(error))

    (link := tmp_path / "link").symlink_to(full)
    with writer(full):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        write(full, overwrite=True)  # the holder itself may
    assert len(refused) == 3
    assert all(f"must have one writer, but process {os.getpid()} is writing {tmp_path}" in one for one in refused)
    assert tree(full) == {"new.txt": b"new"}


HOLDER = """
import sys
from pathlib import Path
from whet.utils.outputs import new_folder
with new_folder(Path(sys.argv[1]), overwrite=True) as draft:
    (draft / "half").touch()
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_named_and_its_death_frees_the_folder(full: Path, tmp_path: Path):
    before = tree(full)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(full)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(OutputExists, match=f"must have one writer, but process {holder.pid} is writing"):
            write(full, overwrite=True)
        holder.kill()
    assert tree(full) == before and {f".out.{holder.pid}.partial", ".out.lock"} < tree(tmp_path).keys()
    write(full, overwrite=True)
    assert tree(tmp_path) == NEW


def test_whoever_only_adds_may_wait(full: Path, capsys: pytest.CaptureFixture[str]):
    order, begun = [], threading.Event()

    def second() -> None:
        begun.set()
        with adding_to(full, wait=True):
            order.append("second")

    with adding_to(full):
        thread = threading.Thread(target=second)
        thread.start()
        begun.wait()
        thread.join(timeout=0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert f"waiting for process {os.getpid()}, which is writing" in capsys.readouterr().err


def test_many_threads_write_one_after_the_other(tmp_path: Path):
    """None sees another at work, although each removes the lock's file when it ends."""
    inside, seen = [], []

    def work(i: int) -> None:
        for _ in range(10):
            with adding_to(tmp_path / "out", wait=True):
                inside.append(i)
                seen.append(len(inside))
                inside.remove(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 40
    assert tree(tmp_path) == {}


def test_the_lock_of_a_killed_process_is_no_obstacle(full: Path, tmp_path: Path):
    (tmp_path / ".out.lock").write_text("123")
    write(full, overwrite=True)
    assert tree(tmp_path) == NEW


def test_where_nothing_can_be_written_beside_it_the_lock_is_inside(full: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != full.parent)
    before = tree(full)
    with adding_to(full):
        assert (full / ".lock").exists() and not (full.parent / ".out.lock").exists()
    assert tree(full) == before


def test_a_lock_that_cannot_be_had_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def without(_lock: FileLock, **_options) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", without)
    with (
        pytest.raises(OutputNotWritten, match="No locks available; check its rights"),
        claimed(tmp_path / "a" / "out", overwrite=False),
    ):
        raise AssertionError("the block must not run")
    assert tree(tmp_path) == {}


# what killed processes left


def test_what_killed_processes_left_is_removed(full: Path, tmp_path: Path):
    others = (
        ".out.5.12.partial",
        ".out2.12.partial",
        ".out.12.partial.txt",
        ".out.x.partial",
        ".o.12.partial",
        ".out.training",
    )
    for name in (".out.12.partial", ".out.7.old", *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / ".out.99.partial").symlink_to(tmp_path / ".o.12.partial")
    write(full, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"out", *others}
    assert (tmp_path / ".o.12.partial" / "file").exists(), "a link is removed, not what it leads to"


def test_names_are_no_patterns(tmp_path: Path):
    (tmp_path / ".a1.12.partial").mkdir()
    write(tmp_path / "a[0-9]")
    assert (tmp_path / ".a1.12.partial").exists()


@pytest.mark.parametrize("made", [True, False])
def test_a_former_folder_that_was_moved_aside_comes_back(made: bool, full: Path, tmp_path: Path):
    before = tree(tmp_path)
    full.rename(tmp_path / ".out.12.old")
    if made:
        full.mkdir()
    (tmp_path / ".out.12.partial").mkdir()
    with pytest.raises(OutputExists, match="must be new or empty"):
        write(full)
    assert tree(tmp_path) == before


# rights


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_everything_gets_the_rights_that_the_umask_gives(umask: int, full: Path):
    before = os.umask(umask)
    try:
        with new_folder(full, overwrite=True) as draft:
            (draft / "sub").mkdir()
            for name, rights in (("weights", 0o600), ("script", 0o777), ("sub/deep", 0o400)):
                (draft / name).write_text("x")
                (draft / name).chmod(rights)
    finally:
        os.umask(before)
    rights = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (full, *full.rglob("*"))}
    file, folder = 0o666 & ~umask, 0o777 & ~umask
    assert rights == {"out": folder, "sub": folder, "weights": file, "script": file, "deep": file}


def test_files_are_checked_like_folders(tmp_path: Path):
    with pytest.raises(OutputNotWritten, match="Too many levels"):
        check_files(loop(tmp_path), ["a"], mark=b"", overwrite=True)
