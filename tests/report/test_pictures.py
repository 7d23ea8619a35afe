"""Pictures as files: their form, and what they never replace."""

import xml.etree.ElementTree as ElementTree

import pytest

import whet
from measured import trial

TRIALS = whet.Trials([trial("dense"), trial("small", accuracy=0.79, speedup=2.0)])


@pytest.mark.parametrize("name", ["plot.png", "plot.svg", "PLOT.SVG"])
def test_the_name_says_the_form_and_the_same_trials_give_the_same_bytes(tmp_path, name):
    path = whet.draw(TRIALS, str(tmp_path / name))
    content = path.read_bytes()
    if name.endswith("png"):
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
    else:
        assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    assert whet.draw(TRIALS, path).read_bytes() == content


def test_the_axes_are_metrics_by_any_of_their_names(tmp_path):
    pictures = {whet.draw(TRIALS, tmp_path / "a.svg", costs=[name]).read_bytes() for name in ("size", "speedup")}
    assert len(pictures) == 2
    with pytest.raises(whet.UnknownName, match="did you mean speedup"):
        whet.draw(TRIALS, tmp_path / "a.svg", costs=["sped_up"])


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("plot.pdf", whet.InvalidParameter, r"must end in \.png or \.svg, but got .*plot\.pdf"),
        ("no/plot.png", whet.OutputNotWritten, "in a folder that exists"),
        ("data.svg", whet.OutputExists, "must be new or a picture"),
    ],
)
def test_a_place_that_no_picture_can_take_is_refused(tmp_path, name, error, message):
    (tmp_path / "data.svg").write_text("<?xml version='1.0'?><rows/>")
    with pytest.raises(error, match=message):
        whet.draw(TRIALS, tmp_path / name)


def test_no_trials_are_no_picture(tmp_path):
    with pytest.raises(whet.InvalidData, match="must have one trial at least"):
        whet.draw(whet.Trials(), tmp_path / "plot.png")
