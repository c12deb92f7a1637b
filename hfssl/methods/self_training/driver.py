"""Self-training as one job: a teacher on the labels alone, then the rounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hfssl.methods.jobs import TrainedModels, TrainingJob
from hfssl.methods.self_training.rounds import SelfTraining
from hfssl.methods.supervised import SupervisedTrainer
from hfssl.tasks.registry import get_task

__all__ = ["train_rounds"]


def train_rounds(job: TrainingJob) -> TrainedModels:
    """Trains a teacher with the settings of the students, and then runs the rounds; both resume after an interruption.

    Args:
        job (`TrainingJob`): Data, settings and functions that make models.
    """
    args, folder = job.args, Path(job.args.output_dir)
    model = job.make_model(args.seed)
    peft_config = job.make_peft_config(model)
    teacher = SupervisedTrainer(
        model,
        replace(args, output_dir=str(folder / "teacher")),
        train_dataset=job.tokens["labeled"],
        processing_class=job.processing_class,
        peft_config=peft_config,
        title="teacher",
    )
    teacher.train(resume_from_checkpoint=True)
    rounds = SelfTraining(
        job.make_model,
        args,
        processing_class=job.processing_class,
        label_names=job.label_names,
        output_dir=folder / "rounds",
        peft_config=peft_config,
    )
    pool, task = job.tokens["unlabeled"], get_task(args.task)
    rounds.fit(
        teacher.model.eval(),
        job.tokens["labeled"],
        pool,
        validation=job.tokens["validation"],
        hidden_labels=task.unit_labels(task.label_array(pool, "hidden_label")),
    )
    return TrainedModels(
        rounds.student_,
        more_models={"teacher": teacher.model},
        results={"rounds": rounds.rounds_, "termination_condition": rounds.termination_condition_},
    )
