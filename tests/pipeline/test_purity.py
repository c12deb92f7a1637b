"""No label judges a model that has learned it, nor one whose pool was labeled by a model that has."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

import hfssl.evaluation.cross_fitting
import hfssl.methods.self_training.frozen_encoder.cache
import hfssl.methods.self_training.teachers
import hfssl.pipeline.stages.folds
from hfssl.data.audit import audit, training_manifest
from hfssl.data.splits import SemiSupervisedSplits
from hfssl.errors import DataError
from hfssl.methods.self_training.frozen_encoder.layer_probe import LayerProbe
from hfssl.methods.self_training.frozen_encoder.signals import EmbeddingSignals
from hfssl.methods.self_training.pseudo_labeler import PseudoLabeler
from hfssl.pipeline.fit import fit
from hfssl.pipeline.fold_store import FoldStore
from hfssl.training.trainer import SSLTrainer
from tests.helpers.rounds_tiny import digest

Rows = frozenset  # of labeled rows, each by its tokens


def keys_of(rows: Dataset) -> list[tuple[int, ...]]:
    return [tuple(ids) for ids in rows["input_ids"][:]]


class Lineage:
    """Follows labels from the trainers and probes that are fitted to them to the predictions that judge.

    What a model has seen is kept under the digest of its weights, what a probe has seen under its coefficients, and
    what a table of probabilities rests on under its bytes: nothing depends on what the code says of itself.

    Attributes:
        judged (`list[tuple[str, Rows, Rows]]`): What judges, the rows that it has seen, and those that it judges.
    """

    def __init__(self, patch: pytest.MonkeyPatch):
        self.of_model: dict[str, Rows] = {}
        self.of_probe: dict[bytes, Rows] = {}
        self.of_table: dict[bytes, Rows] = {}
        self.embedded: dict[bytes, tuple[tuple[int, ...], Rows]] = {}
        self.judged: list[tuple[str, Rows, Rows]] = []
        self.numbers, self.keys = np.zeros(0), []
        self._watch_trainers(patch)
        self._watch_probes(patch)
        self._watch_pseudo_labels(patch)
        self._watch_judges(patch)

    def fold(self, number: int) -> Rows:
        return Rows(key for key, fold in zip(self.keys, self.numbers, strict=True) if fold == number)

    def labels_in(self, rows: Iterable[tuple[int, ...]]) -> Rows:
        return Rows(rows) & Rows(self.keys)

    def _watch_trainers(self, patch: pytest.MonkeyPatch) -> None:
        train, lineage = SSLTrainer.train, self

        def watched(trainer: SSLTrainer, *args: Any, **kwargs: Any) -> Any:
            seen = Rows(keys_of(trainer.train_dataset)) if "labels" in trainer.train_dataset.column_names else Rows()
            start = lineage.of_model.get(digest(trainer.model), Rows())
            found = train(trainer, *args, **kwargs)
            lineage.of_model[digest(trainer.model)] = seen | start | lineage.pending
            return found

        self.pending: Rows = Rows()
        patch.setattr(SSLTrainer, "train", watched)

    def _watch_probes(self, patch: pytest.MonkeyPatch) -> None:
        """Each embedded row is known by its vector; each probe by the rows that it is fitted to, and their model."""
        lineage = self

        def remember(module: Any) -> None:
            embed = module.embed_layers

            def watched(model: Any, rows: Dataset, *args: Any, **kwargs: Any) -> np.ndarray:
                found, seen = embed(model, rows, *args, **kwargs), lineage.of_model.get(digest(model), Rows())
                for key, vector in zip(keys_of(rows), found[-1], strict=True):
                    lineage.embedded[vector.tobytes()] = (key, seen)
                return found

            patch.setattr(module, "embed_layers", watched)

        for module in (
            hfssl.methods.self_training.teachers,
            hfssl.methods.self_training.frozen_encoder.cache,
            hfssl.pipeline.stages.folds,
        ):
            remember(module)
        for module in (
            hfssl.methods.self_training.teachers,
            hfssl.methods.self_training.frozen_encoder.signals,
        ):
            self._watch_fits(patch, module)
        probs, compute = LayerProbe.probs, EmbeddingSignals.compute

        def predicted(probe: LayerProbe, embeddings: np.ndarray) -> np.ndarray:
            found = probs(probe, embeddings)
            models = [lineage.embedded[vector.tobytes()][1] for vector in embeddings[-1]]
            seen = lineage.of_probe[probe.weights.tobytes()].union(*models)
            for table in (found, found.astype(np.float32)):
                lineage.of_table[table.tobytes()] = seen
            return found

        def computed(signals: EmbeddingSignals, labeled: Any, pool: Any, held_out: Any) -> None:
            lineage.signals_seen = Rows(lineage.embedded[vector.tobytes()][0] for vector in labeled.last)
            compute(signals, labeled, pool, held_out)

        self.signals_seen: Rows = Rows()
        patch.setattr(LayerProbe, "probs", predicted)
        patch.setattr(EmbeddingSignals, "compute", computed)

    def _watch_fits(self, patch: pytest.MonkeyPatch, module: Any) -> None:
        fit_probe, lineage = module.fit_layer_probe, self

        def fitted(embeddings: np.ndarray, labels: np.ndarray, *args: Any, **kwargs: Any) -> LayerProbe:
            found = fit_probe(embeddings, labels, *args, **kwargs)
            known = [lineage.embedded[vector.tobytes()] for vector in embeddings[-1]]
            lineage.of_probe[found.weights.tobytes()] = Rows(key for key, _ in known).union(
                *(seen for _, seen in known)
            )
            return found

        patch.setattr(module, "fit_layer_probe", fitted)

    def _watch_pseudo_labels(self, patch: pytest.MonkeyPatch) -> None:
        """Whoever learns pseudo-labels has seen what their teachers, signals and weights rest on."""
        label, lineage = PseudoLabeler.label, self

        def watched(labeler: PseudoLabeler, teachers: Any, labeled: Dataset, pool: Dataset, **more: Any) -> Any:
            found = label(labeler, teachers, labeled, pool, **more)
            seen = lineage.signals_seen | Rows(keys_of(labeled))
            for teacher in teachers:
                if teacher.pool_probs is None:
                    seen |= lineage.of_model[digest(teacher.model)]
                else:
                    rows = {row.tobytes() for row in teacher.pool_probs}
                    tables = [rests_on for known, rests_on in lineage.pools if rows <= known]
                    assert tables, "the pool's probabilities come from nowhere"
                    seen = seen.union(*tables)
            lineage.pending = seen
            return found

        self.pools: list[tuple[set[bytes], Rows]] = []
        patch.setattr(PseudoLabeler, "label", watched)

    def _watch_judges(self, patch: pytest.MonkeyPatch) -> None:
        predict, save, everyone = (
            hfssl.evaluation.cross_fitting.predict_logits,
            FoldStore.save_votes,
            FoldStore.save_everyone,
        )
        lineage = self

        def logits(model: Any, rows: Dataset, *args: Any, **kwargs: Any) -> np.ndarray:
            if judged := lineage.labels_in(keys_of(rows)):
                lineage.judged.append(("model", lineage.of_model[digest(model)], judged))
            return predict(model, rows, *args, **kwargs)

        def saved(store: FoldStore, fold: int, votes: Any, pool: np.ndarray, refitted: Any) -> None:
            seen = lineage.of_table[votes["teachers"].tobytes()]
            lineage.judged.append(("teachers", seen, lineage.fold(fold)))
            lineage.judged.append(("signals", lineage.signals_seen, lineage.fold(fold)))
            lineage.pools.append(({row.tobytes() for row in pool}, lineage.of_table[pool.tobytes()]))
            lineage.pools.append(
                ({row.tobytes() for row in refitted["unlabeled"]}, lineage.of_table[refitted["unlabeled"].tobytes()])
            )
            save(store, fold, votes, pool, refitted)

        def saved_everyone(store: FoldStore, teacher: Any, votes: Any) -> None:
            pool = teacher["unlabeled"]
            lineage.pools.append(({row.tobytes() for row in pool}, lineage.of_table[pool.tobytes()]))
            everyone(store, teacher, votes)

        patch.setattr(hfssl.evaluation.cross_fitting, "predict_logits", logits)
        patch.setattr(FoldStore, "save_votes", saved)
        patch.setattr(FoldStore, "save_everyone", saved_everyone)


@pytest.fixture
def lineage(monkeypatch) -> Lineage:
    """Watches a run; its folds are known as soon as they are made."""
    found, make = Lineage(monkeypatch), hfssl.pipeline.stages.folds.cross_fit

    def folds_are_made(folder: Path, labeled: Dataset, parts: Any, numbers: np.ndarray, *args: Any, **kwargs: Any):
        found.numbers, found.keys = numbers, keys_of(labeled)
        assert len(set(found.keys)) == len(found.keys)
        return make(folder, labeled, parts, numbers, *args, **kwargs)

    monkeypatch.setattr(hfssl.pipeline.stages.folds, "cross_fit", folds_are_made)
    return found


@pytest.mark.usefixtures("tiny_preset")
def test_no_model_and_no_probe_is_judged_by_a_label_that_it_has_seen(options, lineage):
    fit(**options, pretext=False, rounds=1)
    folds = [lineage.fold(number) for number in (0, 1)]
    assert [len(fold) for fold in folds] == [15, 15]
    # Of each fold: the labels-only model, the votes of the ensemble and of its signals, and the student.
    assert sorted(what for what, _, _ in lineage.judged) == ["model"] * 4 + ["signals"] * 2 + ["teachers"] * 2
    for what, seen, judged in lineage.judged:
        assert judged in folds, what
        # It has learned the labels of the other fold, all of them, and none of its own.
        assert seen & Rows(lineage.keys) == folds[1 - folds.index(judged)], what


@pytest.mark.usefixtures("tiny_preset")
@pytest.mark.slow
def test_the_watch_finds_a_probe_of_all_labels_that_votes(options, lineage, monkeypatch):
    """The planted mistake: the folds' teachers predict by probes that are fitted to all labels."""
    predict = hfssl.pipeline.stages.folds._predict

    def all_labels(rounds, folder, fitted_to, parts):
        return predict(rounds, folder, [fitted_to[-1]] * len(fitted_to), parts)

    monkeypatch.setattr(hfssl.pipeline.stages.folds, "_predict", all_labels)
    fit(**options, pretext=False, rounds=1)
    wrong = {what for what, seen, judged in lineage.judged if seen & judged}
    assert wrong == {"teachers", "model"}  # the students, too, which learn from these


def manifests_of(run: Path) -> list[dict]:
    done = [json.loads(path.read_text()) for path in sorted((run / "stages").glob("*/done.json"))]
    return [manifest for record in done for manifest in record["manifests"]]


def test_the_manifests_of_a_run_prove_it_and_a_planted_violation_fails(finished_run):
    splits, manifests = SemiSupervisedSplits.load(finished_run / "splits"), manifests_of(finished_run)
    judges = {manifest["model"] for manifest in manifests if manifest["role"] == "evidence"}
    kinds = ("folds/labels_only", "folds/labels_only_after_pretext", "cross_fitting/self_training")
    assert {f"{kind}-{fold}" for kind in kinds for fold in (0, 1)} <= judges
    report = audit([splits.manifest, *manifests])
    assert report.clean
    assert {"folds", "cross_fitting", "self_training"} <= set(report.stages)
    # Whatever any model has learned, or what its teachers have, is written down: the final student's labels are all.
    [own] = [m for m in manifests if m["stage"] == "self_training" and m["role"] == "unlabeled"]
    assert len(own["taught_by"]) == 3
    judged = next(m for m in manifests if m["role"] == "evidence" and m["model"] == "folds/labels_only-0")
    rows = [splits.manifest["roles"]["labeled"]["fingerprints"].index(key) for key in judged["fingerprints"]]
    one = splits["labeled"].select(rows[:1])
    planted = training_manifest("folds", one, "labeled", model="folds/labels_only-0")
    with pytest.raises(DataError, match="expected each model to be judged by labels that it has not seen") as found:
        audit([splits.manifest, *manifests, planted]).raise_if_leaky()
    assert "row 0 of model 'folds/labels_only-0'" in str(found.value)
    assert "\n" not in str(found.value)
    for manifest in manifests:
        if manifest.get("model") == "cross_fitting/self_training-0" and manifest["role"] == "unlabeled":
            [teacher] = manifest["taught_by"]
            assert teacher.endswith("-0")
            manifest["taught_by"] = [f"{teacher[:-1]}1"]
    report = audit([splits.manifest, *manifests])
    assert {row["model"] for row in report.partial} == {"cross_fitting/self_training-0"}
    with pytest.raises(DataError, match="that it, or a model that labeled its pool, has learned"):
        report.raise_if_leaky()
