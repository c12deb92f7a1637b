"""Bad input, through the public command line: one clear sentence, nothing lost, no traceback."""

from __future__ import annotations

import errno
import html
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fit_tiny import TINY
from transformers import CLIPTextConfig, CLIPTextModel, OPTConfig, OPTModel

import hfssl.data.prepare
import hfssl.presets
from hfssl.cli import main
from hfssl.files import sha256_of
from hfssl.objectives import SupervisedObjective

SCRIPT = Path(__file__).with_name("fit_tiny.py")
WORDS = "the a of film movie story actor city river who what when one two three".split()
CUES = {"yes": "good great fun love".split(), "no": "bad awful dull hate".split()}


def rows(each: int = 8, unlabeled: int = 0) -> list[tuple[str, str]]:
    """`each` rows of either class and as many unlabeled ones as asked for, all with different texts."""

    def text(number: int, cue: str) -> str:
        return f"{WORDS[number % 15]} {cue} {WORDS[number // 15 % 15]} {WORDS[(7 * number + 3) % 15]} {number}"

    made = [(text(i, cues[i % 4]), label) for label, cues in CUES.items() for i in range(each)]
    return made + [(text(1000 + i, CUES["yes" if i % 2 else "no"][i % 4]), "") for i in range(unlabeled)]


def write(path: Path, table: list[tuple], header: str = "text,label") -> Path:
    lines = [header, *(",".join(f'"{value}"' for value in row) for row in table)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder and the hash of what is in it."""
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def words(tiny_backbone, tmp_path, monkeypatch):
    """The options that all tests share; labels only, unless a test asks for more."""
    monkeypatch.setitem(hfssl.presets.PRESETS, "quick", TINY)
    options = ["--backbone", str(tiny_backbone), "--preset", "quick", "--max-length", "32", "--quiet"]
    return [*options, "--rounds", "0", "--no-pretext", "--output-dir", str(tmp_path / "run")]


@pytest.fixture
def fit(words, capsys):
    """Runs `hfssl fit` in this process; returns exit status and stderr."""

    def run(train: Path, *more: str) -> tuple[int, str]:
        status = main(["fit", "--train", str(train), *words, *more])
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def refused(fit, tmp_path):
    """Runs a command that must be refused with one sentence and without a trace; returns the sentence.

    Then, with `mended` (the corrected table), the same output folder must work without further flags.
    """

    def run(train: Path, *more: str, mended: Path | None = None, drop: tuple[str, ...] = ()) -> str:
        status, err = fit(train, *more)
        assert status == 2, err
        lines = err.splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("hfssl: error: ")
        assert lines[0].endswith((".", "?", "!"))
        assert "Traceback" not in err
        assert not (tmp_path / "run").exists()
        assert not list(tmp_path.rglob("*.tmp"))
        if mended is not None:
            assert fit(mended, *(word for word in more if word not in drop))[0] == 0
            assert (tmp_path / "run" / "results.json").exists()
        return lines[0]

    return run


# --- tables --------------------------------------------------------------------------------------------------------


def test_missing_file(refused, tmp_path):
    table = write(tmp_path / "reviews.csv", rows())
    sentence = refused(tmp_path / "review.csv", mended=table)
    assert "there is no such file" in sentence
    assert "Did you mean 'reviews.csv'?" in sentence


@pytest.mark.parametrize("flag", ["--unlabeled", "--validation", "--test"])
def test_missing_file_beside_the_first(refused, tmp_path, flag):
    sentence = refused(write(tmp_path / "train.csv", rows()), flag, str(tmp_path / "none.csv"))
    assert "none.csv" in sentence


def test_missing_column(refused, tmp_path):
    table = write(tmp_path / "train.csv", rows(), header="text,sentiment")
    sentence = refused(table, "--label-column", "sentimnet")
    assert "expected a column 'sentimnet'" in sentence
    assert "found 'text', 'sentiment'" in sentence
    assert "Did you mean 'sentiment'?" in sentence
    assert "--label-column" in sentence


@pytest.mark.parametrize("content", ["", "text,label\n"])
def test_empty_file(refused, tmp_path, content):
    (tmp_path / "train.csv").write_text(content)
    sentence = refused(tmp_path / "train.csv", mended=write(tmp_path / "full.csv", rows()) if content else None)
    assert "expected rows in" in sentence
    assert "check how it was written" in sentence


def test_no_labels_at_all(refused, tmp_path):
    table = write(tmp_path / "train.csv", [(text, "") for text, _ in rows()])
    sentence = refused(table)
    assert "got 16 rows without a label" in sentence
    assert "label a few rows of each class" in sentence


def test_only_one_class(refused, tmp_path):
    sentence = refused(write(tmp_path / "train.csv", [row for row in rows() if row[1] == "yes"]))
    assert "labels of at least two classes, got only 'yes' in 8 rows" in sentence
    assert "label rows of another class" in sentence


def test_a_class_with_one_label_is_trained_on_with_a_warning(fit, tmp_path):
    table = write(tmp_path / "train.csv", [*rows(), ("what a strange river", "maybe")])
    assert_warned(fit(table), tmp_path / "run", "the class 'maybe' has one labeled row", "label a few more")


@pytest.mark.parametrize("flag", ["--test", "--validation"])
def test_a_held_out_label_that_was_never_labeled(refused, tmp_path, flag):
    held_out = write(tmp_path / "held_out.csv", [("one new film", "yes"), ("two new films", "yess")])
    sentence = refused(write(tmp_path / "train.csv", rows()), flag, str(held_out))
    assert "expected one of the labels 'no', 'yes', got 'yess'" in sentence
    assert "held_out.csv', line 3" in sentence
    assert "Did you mean 'yes'?" in sentence


def test_duplicate_ids(refused, tmp_path):
    table = [(*row, number if number != 5 else 2) for number, row in enumerate(rows())]
    path = write(tmp_path / "train.csv", table, header="text,label,key")
    mended = write(tmp_path / "mended.csv", [(*row, n) for n, row in enumerate(rows())], header="text,label,key")
    sentence = refused(path, "--id-column", "key", mended=mended)
    assert "got '2' twice" in sentence
    assert "line 4" in sentence
    assert "line 7" in sentence


def test_broken_utf8(refused, tmp_path):
    path = write(tmp_path / "train.csv", rows())
    lines = path.read_bytes().split(b"\n")
    lines[6] = '"ein größerer Film","yes"'.encode("latin-1")
    path.write_bytes(b"\n".join(lines))
    sentence = refused(path)
    assert "expected UTF-8 text" in sentence
    assert "0xf6 on line 7" in sentence
    assert "save the file again as UTF-8" in sentence


def test_ragged_csv(refused, tmp_path):
    path = write(tmp_path / "train.csv", rows())
    lines = path.read_text().split("\n")
    lines[4] = "good, but long,yes"
    path.write_text("\n".join(lines))
    sentence = refused(path)
    assert "expected 2 fields" in sentence
    assert "got 3 on line 5" in sentence
    assert "put texts that hold a comma in double quotes" in sentence


def test_all_texts_empty(refused, tmp_path):
    sentence = refused(write(tmp_path / "train.csv", [("  ", label) for _, label in rows()]))
    assert "got 16 empty ones" in sentence
    assert "--text-column" in sentence


def test_more_labels_a_class_than_there_are(refused, tmp_path):
    table = write(tmp_path / "train.csv", rows(each=20))
    sentence = refused(table, "--labels-per-class", "50")
    assert "50" in sentence
    assert "'no'" in sentence
    assert "lower" in sentence or "label more" in sentence


# --- texts that are used, with a warning -----------------------------------------------------------------------------


def assert_warned(outcome: tuple[int, str], folder: Path, *parts: str) -> None:
    """The run ended well, and the warning stands in the terminal, in `results.json` and in the report."""
    status, err = outcome
    assert status == 0, err
    assert "Traceback" not in err
    shown = [line for line in err.splitlines() if line.startswith("hfssl: warning: ")]
    kept = json.loads((folder / "results.json").read_text())["data"]["warnings"]
    report = html.unescape((folder / "report.html").read_text())
    for part in parts:
        assert any(part in line for line in shown), err
        assert any(part in warning for warning in kept)
        assert part in report


def test_texts_of_100_000_characters_are_cut_counted_and_reported(fit, tmp_path):
    long = [(f"{WORDS[i]} " * 50_000, "yes" if i % 2 else "no") for i in range(4)]
    assert all(len(text) >= 100_000 for text, _ in long)
    outcome = fit(write(tmp_path / "train.csv", rows() + long))
    assert_warned(outcome, tmp_path / "run", "4 of 20 texts were longer than max_characters", "cut there")


def test_a_long_text_in_the_test_table_is_counted_too(fit, tmp_path):
    test = write(tmp_path / "test.csv", [("river " * 20_000, "yes"), ("an awful city", "no")])
    outcome = fit(write(tmp_path / "train.csv", rows()), "--test", str(test))
    assert_warned(outcome, tmp_path / "run", "1 of 18 texts were longer than max_characters")


@pytest.mark.parametrize(
    ("shares", "unlabeled", "expected"),
    [
        ("yes=1", 24, "expected one number above 0 for each class, such as 'no=1, yes=1'"),
        ("yes=1, no=1", 0, "class_shares are those of the unlabeled rows, of which there are none"),
    ],
)
def test_class_shares_that_cannot_be_meant(refused, tmp_path, shares, unlabeled, expected):
    table = write(tmp_path / "train.csv", rows(unlabeled=unlabeled))
    assert expected in refused(table, "--rounds", "1", "--class-shares", shares)


def test_class_shares_without_self_training(refused, tmp_path):
    sentence = refused(write(tmp_path / "train.csv", rows(unlabeled=24)), "--class-shares", "yes=1, no=1")
    assert "class_shares count for self-training only, and rounds is 0" in sentence


def test_unlabeled_texts_in_another_script(fit, tmp_path):
    cyrillic = ["фильм хороший", "фильм плохой", "это очень скучно", "отличная история", "актёр играет", "две реки"]
    unlabeled = write(tmp_path / "pool.csv", [(text,) for text in cyrillic], header="text")
    outcome = fit(write(tmp_path / "train.csv", rows()), "--unlabeled", str(unlabeled))
    assert_warned(outcome, tmp_path / "run", "in another script than the labeled ones (mostly Cyrillic, not Latin)")


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_another_run(fit, tmp_path):
    table = write(tmp_path / "train.csv", rows())
    assert fit(table)[0] == 0
    before = contents(tmp_path / "run")
    status, err = fit(table)
    assert status == 2
    assert len(err.splitlines()) == 1
    for flag in ("--resume", "--overwrite-output-dir"):
        assert flag in err
    status, err = fit(table, "--seed", "3", "--resume")
    assert status == 2
    assert "seed=0; got 3" in err
    assert contents(tmp_path / "run") == before


def test_bad_input_never_costs_the_run_that_was_to_be_replaced(fit, tmp_path):
    assert fit(write(tmp_path / "train.csv", rows()))[0] == 0
    before = contents(tmp_path / "run")
    assert fit(tmp_path / "none.csv", "--overwrite-output-dir")[0] == 2
    assert fit(write(tmp_path / "bad.csv", rows(), header="x,y"), "--overwrite-output-dir")[0] == 2
    assert fit(tmp_path / "train.csv", "--overwrite-output-dir", "--backbone", str(tmp_path))[0] == 2
    assert contents(tmp_path / "run") == before


def test_a_run_that_ended_before_its_splits_were_saved_is_in_nobodys_way(fit, tmp_path):
    (tmp_path / "run" / ".splits.x.tmp").mkdir(parents=True)  # as kill -9 leaves it
    (tmp_path / "run" / "settings.json").write_text('{"seed": 7}')
    assert fit(write(tmp_path / "train.csv", rows()))[0] == 0
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_a_backbone_without_weights(refused, tiny_backbone, tmp_path):
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone, folder)
    (folder / "model.safetensors").unlink()
    sentence = refused(write(tmp_path / "train.csv", rows()), "--backbone", str(folder))
    assert f"Expected model.safetensors in the folder '{folder}', but found no weights" in sentence
    assert "save_pretrained" in sentence
    shutil.copy(tiny_backbone / "model.safetensors", folder)
    assert main_ok(tmp_path, folder)


def main_ok(tmp_path: Path, backbone: Path) -> bool:
    words = ["fit", "--train", str(tmp_path / "train.csv"), "--output-dir", str(tmp_path / "run"), "--preset", "quick"]
    return main([*words, "--backbone", str(backbone), "--rounds", "0", "--no-pretext", "--quiet"]) == 0


def test_a_backbone_with_weights_in_a_pickle_only(refused, tiny_backbone, tmp_path):
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    sentence = refused(write(tmp_path / "train.csv", rows()), "--backbone", str(folder))
    assert "pickles can run code" in sentence


def test_a_backbone_without_a_tokenizer(refused, tiny_backbone, tmp_path):
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone, folder, ignore=lambda _, names: [n for n in names if "token" in n or "vocab" in n])
    sentence = refused(write(tmp_path / "train.csv", rows()), "--backbone", str(folder))
    assert "tokenizer" in sentence


def test_a_backbone_with_an_unsupported_head(refused, tiny_tokenizer, tmp_path):
    folder = tmp_path / "backbone"
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPTextModel(CLIPTextConfig(vocab_size=len(tiny_tokenizer), **size)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    sentence = refused(write(tmp_path / "train.csv", rows()), "--backbone", str(folder))
    assert "no sequence-classification head for the architecture 'clip_text_model'" in sentence
    assert "use an encoder such as BERT" in sentence


def test_a_backbone_that_cannot_do_the_pretext(refused, tiny_tokenizer, tmp_path):
    """Known from its configuration: said before the labels-only model is trained, not after."""
    folder = tmp_path / "backbone"
    size = {"hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    OPTModel(OPTConfig(vocab_size=len(tiny_tokenizer), word_embed_proj_dim=32, **size)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    table = write(tmp_path / "train.csv", rows(unlabeled=24))
    sentence = refused(table, "--backbone", str(folder), "--pretext")
    assert "Expected an encoder with a masked-language head" in sentence
    assert "--no-pretext" in sentence


@pytest.mark.parametrize("folder", ["file/run", "/proc/run"], ids=["below a file", "a file system that refuses"])
def test_a_folder_that_cannot_be_written(fit, tmp_path, folder):
    (tmp_path / "file").write_text("precious")
    status, err = fit(write(tmp_path / "train.csv", rows()), "--output-dir", str(tmp_path / folder))
    assert status == 2
    assert len(err.splitlines()) == 1, err
    assert str(tmp_path / folder) in err or str((tmp_path / folder).parent) in err
    assert "choose another" in err
    assert "--resume" not in err  # nothing was begun that one could go on with
    assert (tmp_path / "file").read_text() == "precious"


def test_a_prediction_that_cannot_be_written(fit, tmp_path, capsys):
    table = write(tmp_path / "train.csv", rows())
    assert fit(table)[0] == 0
    model = str(tmp_path / "run" / "model")
    for output in ("/proc/out.csv", "/proc/below/out.csv", str(table / "out.csv")):
        assert main(["predict", "--model", model, "--input", str(table), "--output", output]) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1, err
        assert "choose another" in err


# --- what happens on the way -----------------------------------------------------------------------------------------


def in_process(words: list[str], *more: str, kill: dict | None = None, **options) -> subprocess.CompletedProcess:
    request = {"argv": ["fit", *words, *more], "kill": kill}
    return subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(request)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        **options,
    )


def test_a_full_disk(words, tmp_path):
    """The file-size limit of the process stands in for the end of the disk: whatever is larger cannot be written."""
    words = ["--train", str(write(tmp_path / "train.csv", rows())), *words]
    limit = 80_000  # between the splits and the weights
    full = in_process(words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    last = full.stderr.splitlines()[-1]
    assert last.startswith("hfssl: error: There is no room on the disk")
    assert "free some space" in last
    assert "--resume" in last
    assert not list(tmp_path.rglob("*.tmp"))
    splits = contents(tmp_path / "run" / "splits")
    assert main(["fit", *words, "--resume"]) == 0
    assert contents(tmp_path / "run" / "splits") == splits


def test_a_full_disk_at_the_very_beginning_is_in_nobodys_way(fit, tmp_path, monkeypatch):
    """The system's own refusal while the splits are written, and then the same command once there is room."""
    table = write(tmp_path / "train.csv", rows())
    replace = os.replace

    def no_room(source, target):
        if Path(target).name == "splits":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", no_room)
    status, err = fit(table)
    assert status == 2
    assert "There is no room on the disk" in err
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr(os, "replace", replace)
    assert fit(table)[0] == 0


def test_ctrl_c_saves_says_how_to_go_on_and_loses_nothing(words, tmp_path):
    words = ["--train", str(write(tmp_path / "train.csv", rows(unlabeled=24))), *words, "--rounds", "1"]
    assert main(["fit", *words, "--output-dir", str(tmp_path / "whole")]) == 0
    for number, title in enumerate(("labels only", "round 1")):
        kill = {"title": title, "step": 3, "signal": "SIGINT"}
        stopped = in_process(words, *["--resume"] * (number > 0), kill=kill)
        assert stopped.returncode == 130, stopped.stderr
        assert "Traceback" not in stopped.stderr
        last = stopped.stderr.splitlines()[-1]
        assert last.startswith("hfssl: stopped: Stopped after step 4 of ")
        assert "state saved in" in last
        assert "run the same command with --resume" in last
        assert not (tmp_path / "run" / "results.json").exists()
    assert main(["fit", *words, "--resume"]) == 0
    weights = [tmp_path / run / "stages" / "self_training" / "model" / "model.safetensors" for run in ("run", "whole")]
    assert sha256_of(weights[0]) == sha256_of(weights[1])


@pytest.fixture
def _listening_to_ctrl_c():
    """As at a terminal: what a shell starts in the background ignores Ctrl-C, the tests included."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_listening_to_ctrl_c")
def test_ctrl_c_outside_of_training(fit, tmp_path, monkeypatch):
    """While tables are read: there is nothing to save, and still no traceback."""
    monkeypatch.setattr(hfssl.data.prepare, "few_label_splits", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    status, err = fit(write(tmp_path / "train.csv", rows()))
    assert status == 130
    assert err.startswith("hfssl: stopped: Interrupted.")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_a_number(fit, tmp_path, monkeypatch):
    table, loss = write(tmp_path / "train.csv", rows()), SupervisedObjective.loss

    def poisoned(self, model, labeled, unlabeled, step):
        parts = loss(self, model, labeled, unlabeled, step)
        return {name: value * (math.nan if step == 7 else 1.0) for name, value in parts.items()}

    monkeypatch.setattr(SupervisedObjective, "loss", poisoned)
    status, err = fit(table)
    assert status == 2
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("hfssl: error: Expected a finite loss, got NaN or infinity at step 8 of 12")
    kept = tmp_path / "run" / "stages" / "labels_only" / "checkpoints" / "checkpoint-5"
    assert str(kept) in last
    assert (kept / "model.safetensors").exists()
    monkeypatch.setattr(SupervisedObjective, "loss", loss)
    assert fit(table, "--resume")[0] == 0  # from the last good state
