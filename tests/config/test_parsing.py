"""defaults < YAML < command line, and every problem in one error."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hfssl.config.arguments import AdapterArguments, DataArguments, FitArguments, ModelArguments, PushArguments
from hfssl.config.parsing import RENAMED_OPTIONS, dataclass_parser, parse, read_yaml
from hfssl.errors import ConfigurationError
from hfssl.methods.self_training.config import SelfTrainingConfig

NEEDED = ["--train", "a.csv", "--output-dir", "out"]
RECIPE = [DataArguments, ModelArguments, AdapterArguments, SelfTrainingConfig]


def fit(*argv, yaml_path=None):
    return parse([FitArguments], [*NEEDED, *argv], yaml_path)[0]


def fit_problems(argv, yaml_path=None):
    with pytest.raises(ConfigurationError) as caught:
        parse([FitArguments], argv, yaml_path)
    return caught.value.problems


def recipe(argv, yaml_path=None):
    from transformers import HfArgumentParser

    return parse(RECIPE, argv, yaml_path, parser=HfArgumentParser(RECIPE, allow_abbrev=False), ignore=["method"])


@pytest.fixture
def write(tmp_path):
    def write_yaml(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_yaml


def test_defaults_then_yaml_then_command_line(write):
    path = write("seed: 3\nlora-r: 4\nlora_dropout: 0.2\nquiet: true\n")
    arguments = fit("--lora-r", "32", "--config", str(path))
    assert (arguments.seed, arguments.lora_r, arguments.lora_dropout, arguments.quiet) == (3, 32, 0.2, True)
    assert arguments.lora_alpha == AdapterArguments().lora_alpha
    assert fit("--lora-r", "32", yaml_path=path) == arguments


def test_config_flag_wins_over_the_default_file(write, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("seed: 8\n", encoding="utf-8")
    assert fit("--config", str(other), yaml_path=write("seed: 3\n")).seed == 8


@pytest.mark.parametrize("text", ["1e-4", "'1e-4'", "0.0001", "1.0e-4"])
def test_yaml_scientific_notation_becomes_a_float(write, text):
    arguments = recipe(NEEDED, write(f"learning_rate: {text}\nlora_dropout: 1e-1\n"))
    assert arguments[-1].learning_rate == 1e-4
    assert arguments[2].lora_dropout == 0.1


@pytest.mark.parametrize(
    ("argv", "expected"),
    [([], None), (["--pretext"], True), (["--no-pretext"], False), (["--no_pretext"], False)],
)
def test_three_valued_switch(argv, expected):
    assert fit(*argv).pretext is expected


@pytest.mark.parametrize("spelling", ["--lora-r=4", "--lora_r=4", "--lora_r 4", "--lora-r 4"])
def test_spellings_of_a_flag(spelling):
    assert fit(*spelling.split()).lora_r == 4


def test_every_problem_is_reported_at_once_with_near_matches(write):
    path = write("sead: 1\nlora_r: many\nadapter: lroa\nquiet: maybe\ntext_column:\nrounds: [1, 2]\n")
    problems = fit_problems(["--trian", "a.csv", "--preset", "quik", "--seed", "1", "2", "--config", str(path)])
    text = "\n".join(problems)
    for expected in (
        "--trian: unknown option. Did you mean '--train'?",
        "sead (in ",
        "Did you mean 'seed'?",
        "lora_r (in ",
        "expected a whole number, got 'many'.",
        "got 'lroa'. Did you mean 'lora'?",
        "expected true or false, got 'maybe'.",
        "text_column (in ",
        "expected a value, got null.",
        "expected one value, got [1, 2].",
        "--preset: expected one of quick, standard, thorough; got 'quik'. Did you mean 'quick'?",
        "--seed: expected one value, got 2: 1 2",
        "--train is required.",
        "--output-dir is required.",
    ):
        assert expected in text
    assert len(problems) == 11


def test_a_renamed_option_is_answered_with_its_new_name(write):
    path = write("class_shares: a=1\ndraw: easy\n")
    problems = fit_problems([*NEEDED, "--class-shares", "a=1", "--config", str(path)])
    assert problems == [
        "--class-shares: unknown option. Its name is now '--class-prior'.",
        f"class_shares (in '{path}'): unknown key. Its name is now 'class_prior'.",
        f"draw (in '{path}'): unknown key.",  # an option of self-training, which `fit` does not have
    ]
    with pytest.raises(
        ConfigurationError, match=r"^--student_start: unknown option. Its name is now '--student-init'"
    ):
        recipe([*NEEDED, "--student_start", "teacher"])
    with pytest.raises(ConfigurationError, match=r"--what: .*'--artifact'.\n--texts: .*'--include-report'\.$"):
        parse([PushArguments], ["--folder", "a", "--repo-id", "b", "--what", "both", "--texts"])


@pytest.mark.parametrize(("old", "new"), RENAMED_OPTIONS.items())
def test_renamed_options_exist_under_their_new_names_only(old, new):
    options = {field.name for cls in (*RECIPE, FitArguments, PushArguments) for field in dataclasses.fields(cls)}
    assert new in options
    assert old not in options


def test_checks_between_values_join_the_list():
    problems = fit_problems([*NEEDED, "--resume", "--overwrite-output-dir", "--lora-r", "0", "--label-column", "text"])
    assert len(problems) == 3
    assert any("resume and overwrite_output_dir exclude each other" in problem for problem in problems)
    assert any("lora_r must be at least 1, got 0" in problem for problem in problems)
    assert any("text_column and label_column both name the column 'text'" in problem for problem in problems)


def test_an_empty_value_takes_back_what_the_file_says(write):
    path = write("test: b.csv\nmax_test: 5\n")
    arguments = fit("--test=", "--max-test", "", yaml_path=path)
    assert (arguments.test, arguments.max_test) == (None, None)
    assert fit_problems([*NEEDED, "--seed="]) == ["--seed: expected a whole number, got ''."]


def test_a_word_without_an_option():
    problems = fit_problems(["reviews.csv", *NEEDED])
    assert problems == ["'reviews.csv' does not follow any option; options start with --."]


def test_a_flag_without_its_value():
    assert fit_problems(["--train", *NEEDED[2:]]) == ["--train: expected a value, got nothing."]
    assert fit_problems([*NEEDED, "--config"]) == ["--config: expected a value, got nothing."]
    assert fit_problems([*NEEDED, "--config", "a", "b"])[0].startswith("--config: expected one value, got 2: a b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: b: c\n",
            r"settings\.yaml' is not valid YAML: mapping values .* here \(line 1, column 5\)\.$",
        ),
        (
            "a: [1, 2\nb: 3\n",
            r"YAML: while parsing .* \(line 1, column 4\), expected .* got ':' \(line 2, column 2\)\.$",
        ),
        ("a: *b\n", r"YAML: found undefined alias 'b' \(line 1, column 4\)\.$"),
        ("a: !!python/name:os.system\n", r"YAML: could not determine a constructor .* \(line 1, column 4\)\.$"),
        ("a: \x00\n", r"YAML: unacceptable character #x0000: .* in \".*settings\.yaml\", position 3\.$"),
        ("- a\n- b\n", "holds a list"),
        ("seed: 1\nseed: 2\n", "seed: given more than once"),
        ("text-column: a\ntext_column: b\n", "text_column: given more than once"),
    ],
)
def test_bad_yaml_files(write, text, expected):
    with pytest.raises(ConfigurationError, match=expected):
        read_yaml(write(text))


def test_missing_yaml_file_is_one_of_the_problems(tmp_path):
    problems = fit_problems(["--seed", "x", "--config", str(tmp_path / "none.yaml"), *NEEDED])
    assert len(problems) == 2
    assert "Cannot read the YAML file" in problems[0]


def test_yaml_booleans_for_words_are_explained(write):
    with pytest.raises(ConfigurationError, match="put quotes around it"):
        recipe(NEEDED, write("eval_strategy: no\n"))
    assert recipe(NEEDED, write("eval_strategy: 'no'\n"))[-1].eval_strategy == "no"


def test_training_arguments_of_every_kind(write):
    path = write(
        "method: self_training\nmax_steps: 7\nuse_cpu: true\nlr_scheduler_kwargs: {power: 2}\n"
        "report_to: [none]\nlambda_u: 5e-1\nlr_scheduler_type: cosine\n"
    )
    data, model, adapter, config = recipe([*NEEDED, "--max_steps", "9", "--adapter", "lora"], path)
    assert (data.train, model.pooling, adapter.adapter) == ("a.csv", "stock", "lora")
    assert (config.max_steps, config.use_cpu, config.lambda_u) == (9, True, 0.5)
    assert config.lr_scheduler_kwargs == {"power": 2}
    assert config.lr_scheduler_type == "cosine"


def test_the_checks_of_the_config_join_the_list(write):
    with pytest.raises(ConfigurationError) as caught:
        recipe(NEEDED, write("lambda_u: -1\nrounds: 0\nunlabeled_rato: 2\n"))
    assert len(caught.value.problems) == 3
    assert "Did you mean 'unlabeled_ratio'?" in caught.value.problems[0]


def test_fit_help_shows_every_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        parse([FitArguments], ["--help"], parser=dataclass_parser([FitArguments]))
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(FitArguments):
        assert "--" + field.name.replace("_", "-") in shown
    assert "--config" in shown


def test_results_json_repeats_its_run_and_flags_win(tmp_path):
    command = "hfssl fit --train 'my reviews.csv' --output-dir runs/a --seed 3 --no-pretext"
    (tmp_path / "results.json").write_text(json.dumps({"command": command, "stages": [], "seed": 3}))
    words = ["--config", str(tmp_path / "results.json"), "--output-dir", "runs/b", "--seed", "4"]
    (found,) = parse([FitArguments], words)
    expected = FitArguments(train="my reviews.csv", output_dir="runs/b", seed=4, pretext=False)
    assert found == expected
