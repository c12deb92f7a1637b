"""Bad input, through the public command line: one clear sentence, nothing lost, no traceback."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import pytest
from transformers import CLIPTextConfig, CLIPTextModel, OPTConfig, OPTModel

from hfssl.cli.main import main
from hfssl.pipeline.run_folder import RunFolder
from tests.helpers.tiny_tables import WORDS, contents, rows, write


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
    lines[1:6] = ['"ein größerer Film","yes"'.encode()] * 5  # else the whole file may have another encoding
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
    ("class_prior", "unlabeled", "expected"),
    [
        ("yes=1", 24, "expected one number above 0 for each class, such as 'no=1, yes=1'"),
        ("yes=1, no=1", 0, "class_prior is that of the unlabeled rows, of which there are none"),
    ],
)
def test_a_class_prior_that_cannot_be_meant(refused, tmp_path, class_prior, unlabeled, expected):
    table = write(tmp_path / "train.csv", rows(unlabeled=unlabeled))
    assert expected in refused(table, "--rounds", "1", "--class-prior", class_prior)


def test_a_class_prior_without_self_training(refused, tmp_path):
    sentence = refused(write(tmp_path / "train.csv", rows(unlabeled=24)), "--class-prior", "yes=1, no=1")
    assert "class_prior is for self-training only, and rounds is 0" in sentence


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
    begun = RunFolder(tmp_path / "run", {"seed": 7}, resume=False, overwrite=False)
    begun.open()
    begun.close()
    (tmp_path / "run" / ".splits.ab12_xyz.tmp").mkdir()  # as kill -9 leaves it
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
