"""The state of a method that must survive a restart is in one file of the checkpoint."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainerCallback

from hfssl.errors import TrainingError
from hfssl.training.stateful import METHOD_STATE, load_states, save_states
from tests.helpers.train_tiny import make_trainer


class Counts:
    """Counts steps, in a tensor and in a plain value."""

    def __init__(self):
        self.steps, self.names = torch.zeros(2), []

    def count(self):
        self.steps += torch.tensor([1.0, 2.0])
        self.names = [*self.names, f"step {len(self.names)}"]

    def state_dict(self):
        return {"steps": self.steps, "names": self.names}

    def load_state_dict(self, state):
        self.steps, self.names = state["steps"], state["names"]


class CountSteps(TrainerCallback):
    def __init__(self, counts):
        self.counts = counts

    def on_step_end(self, args, state, control, **kwargs):
        self.counts.count()


def test_states_come_back_from_one_file(tmp_path):
    parts = {"a": Counts(), "b": Counts()}
    parts["a"].count()
    save_states(parts, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [METHOD_STATE]
    loaded = {"a": Counts(), "b": Counts()}
    load_states(loaded, tmp_path)
    assert loaded["a"].steps.tolist() == [1.0, 2.0]
    assert loaded["a"].names == ["step 0"]
    assert loaded["b"].steps.tolist() == [0.0, 0.0]


def test_a_checkpoint_of_other_parts_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"Expected method_state.pt in the checkpoint .*, found none"):
        load_states({"a": Counts()}, tmp_path)
    save_states({"a": Counts()}, tmp_path)
    with pytest.raises(TrainingError, match=r"Expected the states of a, b in .*, found those of a: resume with"):
        load_states({"a": Counts(), "b": Counts()}, tmp_path)


def test_a_registered_part_goes_on_where_it_was(tiny_backbone, tmp_path):
    def run(**settings):
        trainer = make_trainer(tiny_backbone, tmp_path, weight_average_decay=0.9, **settings)
        counts = Counts()
        trainer.register_state("counts", counts)
        trainer.add_callback(CountSteps(counts))
        trainer.train(resume_from_checkpoint=True)
        return counts

    run()
    checkpoint = tmp_path / "checkpoint-6"
    states = torch.load(checkpoint / METHOD_STATE, weights_only=True)
    assert states.keys() == {"objective", "weight_average", "counts"}
    stock = "optimizer.pt rng_state.pth scheduler.pt trainer_state.json training_args.bin hfssl_complete".split()
    others = {path.name for path in checkpoint.iterdir()} - {METHOD_STATE, *stock}
    assert not [name for name in others if name.endswith((".pt", ".pth"))]
    (tmp_path / "checkpoint-8/hfssl_complete").unlink()  # as if killed after step 6
    counts = run()
    assert counts.steps.tolist() == [8.0, 16.0]
    assert counts.names == [f"step {i}" for i in range(8)]


def test_resuming_with_another_setting_is_refused(tiny_backbone, tmp_path):
    make_trainer(tiny_backbone, tmp_path, max_steps=3).train()
    resumed = make_trainer(tiny_backbone, tmp_path, max_steps=6, weight_average_decay=0.9)
    with pytest.raises(TrainingError, match="Expected the states of objective, weight_average"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_what_could_not_be_read_again_is_refused_when_it_is_saved(tmp_path):
    counts = Counts()
    counts.names = {"file": [tmp_path]}
    with pytest.raises(TrainingError, match=r"in the state of a, found pathlib\.PosixPath: return something plain"):
        save_states({"a": counts}, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"junk", r"Expected the state of a method in .*method_state.pt', found a file that cannot be read"),
        ([1], r"Expected the states of a in .*method_state.pt', found a list: train without"),
        ({"a": {"other": 1}}, r"Expected a state of a in .* Counts.load_state_dict\(\) takes, got KeyError: 'steps'"),
    ],
    ids=["junk", "list", "keys"],
)
def test_a_state_that_does_not_fit_is_one_sentence(tmp_path, content, message):
    file = tmp_path / METHOD_STATE
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(TrainingError, match=message):
        load_states({"a": Counts()}, tmp_path)
