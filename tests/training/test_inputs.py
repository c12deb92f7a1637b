"""What a trainer takes: model ids, data sets in any format, labels of any kind; and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hfssl.errors import DataError, ModelError
from hfssl.methods.supervised import SupervisedConfig, SupervisedTrainer
from hfssl.tasks.registry import get_task
from hfssl.training.inputs import label_names_of, labeled_rows, load_trainable, plain_rows
from tests.helpers.train_tiny import LABEL_NAMES, make_dataset, make_trainer


def rows(labels, feature=None) -> Dataset:
    data = {"text": [f"text {number}" for number in range(len(labels))], "label": labels}
    return Dataset.from_dict(data, features=feature and Features({"text": Value("string"), "label": feature}))


@pytest.mark.parametrize(
    ("labels", "feature"),
    [
        ([0, 2, 1], None),
        ([0.0, 2.0, 1.0], None),
        (["bad", "plot", "good"], None),
        ([2, 1, 0], ClassLabel(names=["good", "plot", "bad"])),  # the same names in another order
        ([0, 2, 1], ClassLabel(names=["a", "b", "c"])),  # other names: numbers count
    ],
)
def test_labels_of_every_kind_become_class_numbers(labels, feature):
    found = labeled_rows(rows(labels, feature), LABEL_NAMES, "train_dataset", get_task())
    assert found["label"][:] == [0, 2, 1]
    assert all(type(label) is int for label in found["label"][:])


def test_booleans_are_two_classes_and_whole_numbers_stay_the_same_object():
    assert labeled_rows(rows([True, False]), ["no", "yes"], "x", get_task())["label"][:] == [1, 0]
    same = rows([1, 0])
    assert labeled_rows(same, ["no", "yes"], "x", get_task()) is same


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3], r"class numbers from 0 to 2 \('bad', 'good', 'plot'\) .* got 3 in row 2 of train_dataset"),
        ([0.5, 1.0], "got 0.5 in row 0"),
        (["bad", "goood"], "got 'goood' in row 1 of train_dataset. Did you mean 'good'"),
        ([0, None, 1, -1], "got 2 rows without one"),
    ],
)
def test_labels_that_are_no_class_are_refused_in_one_sentence(labels, message):
    with pytest.raises(DataError, match=message) as caught:
        labeled_rows(rows(labels), LABEL_NAMES, "train_dataset", get_task())
    assert "\n" not in str(caught.value)


def test_rows_without_a_label_can_be_predicted():
    found = labeled_rows(rows([0, None]), LABEL_NAMES, "test_dataset", get_task(), optional=True)
    assert found.column_names == ["text"]


def test_formats_are_taken_off_and_other_data_is_refused():
    plain = plain_rows(rows([0, 1]).with_format("torch"), "train_dataset")
    assert type(plain[0]["label"]) is int
    with pytest.raises(DataError, match=r"got a stream .*Dataset\.from_list"):
        plain_rows(rows([0]).to_iterable_dataset(), "train_dataset")
    with pytest.raises(DataError, match=r"as train_dataset, got a dict: hfssl\.load_table makes one"):
        plain_rows({"text": ["a"]}, "train_dataset")


def test_the_classes_of_a_new_model_are_those_of_the_data():
    assert label_names_of(rows(["b", "a", "b"])) == ["a", "b"]
    assert label_names_of(rows([0, 1], ClassLabel(names=["no", "yes"]))) == ["no", "yes"]
    assert label_names_of(rows([2, 0, -1])) == ["0", "1", "2"]
    with pytest.raises(DataError, match="expected labels in train_dataset"):
        label_names_of(None)
    with pytest.raises(ModelError, match="got a int: make a model with"):
        load_trainable(3, None, get_task(), seed=0)


def test_a_trainer_takes_a_model_id_and_default_arguments(tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = make_dataset(6, labels=True)
    named = named.remove_columns("label").add_column("label", [LABEL_NAMES[label] for label in named["label"]])
    trainer = SupervisedTrainer(str(tiny_backbone), train_dataset=named)
    assert trainer.model.config.id2label == dict(enumerate(LABEL_NAMES))
    assert trainer.args.output_dir == f"{tiny_backbone.name}-Supervised"
    assert trainer.train_dataset["labels"][:] == [0, 1, 2, 0, 1, 2]
    assert SupervisedConfig(output_dir=tmp_path / "out", seed=np.int64(3)).seed == 3


def test_evaluate_and_predict_prepare_rows_as_the_constructor_does(tiny_backbone, tmp_path):
    data = make_dataset(6, labels=True)
    trainer = make_trainer(tiny_backbone, tmp_path, eval_dataset={"a": data, "b": data.select([0, 1])})
    both = trainer.evaluate()
    assert {"eval_a_loss", "eval_b_loss"} <= set(both)
    assert trainer.evaluate(data)["eval_loss"] == both["eval_a_loss"]
    assert trainer.evaluate({"c": data.with_format("numpy")})["eval_c_loss"] == both["eval_a_loss"]
    found = trainer.predict(data)
    assert found.predictions.shape == (6, 3)
    assert found.metrics["test_loss"] == both["eval_a_loss"]
    unlabeled = trainer.predict(data.remove_columns("label"))
    np.testing.assert_array_equal(unlabeled.predictions, found.predictions)
    with pytest.raises(DataError, match="got 3 in row 0 of eval_dataset"):
        trainer.evaluate(rows([3]))


def test_class_weights_reach_the_losses_on_labels(tiny_backbone, tmp_path):
    trainer = make_trainer(tiny_backbone, tmp_path, class_weights="balanced", head_init="logistic")
    np.testing.assert_allclose(trainer.class_weights, [11 / 12, 11 / 12, 11 / 9], rtol=1e-6)  # 4, 4 and 3 of 11 rows
    assert trainer.objective.task.class_weights is trainer.class_weights
    student = make_trainer(tiny_backbone, tmp_path, "self_training", class_weights={"bad": 1, "good": 2, "plot": 3})
    assert student.objective.task.class_weights.tolist() == [1, 2, 3]
    assert student.objective.supervised.task.class_weights.tolist() == [1, 2, 3]
    assert get_task().class_weights is None
