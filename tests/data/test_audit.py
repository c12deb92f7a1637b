"""The audit finds rows that a phase must not have trained on, and inspection finds likely mistakes in a table."""

from __future__ import annotations

import json

import pytest
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets

from hfssl.data.audit import audit, evidence_manifest, fingerprint, inspect_texts, released, training_manifest
from hfssl.data.splits import few_label_splits
from hfssl.errors import DataError

WORDS = (
    "apple bread candle desert engine forest garden hammer island jungle kettle ladder market needle orange".split()
)


def table(texts, labels, **columns):
    features = {"text": Value("string"), "label": ClassLabel(names=["x", "y"])}
    features |= {column: Value("bool") for column in columns}
    return Dataset.from_dict({"text": texts, "label": labels, **columns}, features=Features(features))


@pytest.fixture(scope="module")
def splits():
    texts = [f"{a} {b} {c}" for a in WORDS[:5] for b in WORDS[5:10] for c in WORDS[10:]]
    return few_label_splits(table(texts, [row % 2 for row in range(len(texts))]), labels_per_class=10)


def honest(splits):
    return [
        training_manifest(
            "pretext",
            concatenate_datasets([splits["labeled"], splits["unlabeled"].remove_columns("hidden_label")]),
            "unlabeled",
        ),
        training_manifest("labels_only", splits["labeled"], "labeled"),
    ]


def test_fingerprint_is_128_bits_of_the_normalised_text():
    assert len(fingerprint("Who won ?")) == 32
    assert fingerprint("Who won ?") == fingerprint("who  won?")
    assert fingerprint("Who won ?") != fingerprint("who lost?")
    assert fingerprint("a", "b") != fingerprint("a", "c") != fingerprint("a")


def test_honest_phases_pass(splits):
    report = audit([splits.manifest, *honest(splits)])
    assert report.clean
    assert report.stages == ["pretext", "labels_only"]
    report.raise_if_leaky()


@pytest.mark.parametrize("part", ["validation", "proxy", "test"])
def test_a_leaked_row_is_named(splits, part):
    stolen = splits[part].select([1]).map(lambda row: {"text": row["text"].upper() + " "})
    manifests = [*honest(splits), training_manifest("self_training", stolen, "unlabeled")]
    report = audit([splits.manifest, *manifests])
    row = splits[part]["id"][1]
    assert report.leaks == [
        {"stage": "self_training", "role": part, "fingerprint": fingerprint(splits[part]["text"][1]), "row": row}
    ]
    with pytest.raises(DataError, match=f"got 1 leaked: {part} row {row} in stage 'self_training'"):
        report.raise_if_leaky()


def test_rows_from_nowhere_prove_nothing(splits):
    report = audit([splits.manifest, training_manifest("pretext", table(["never seen"], [0]), "unlabeled")])
    assert not report.leaks
    assert [(row["stage"], row["row"]) for row in report.unknown] == [("pretext", 0)]
    with pytest.raises(DataError, match="got 1 unknown ones: row 0 of stage 'pretext'"):
        report.raise_if_leaky()


def test_parts_that_overlap_are_a_leak_of_the_splits_themselves(splits):
    forged = json.loads(json.dumps(splits.manifest))
    row, key = forged["roles"]["labeled"]["ids"][0], forged["roles"]["labeled"]["fingerprints"][0]
    forged["roles"]["test"]["ids"].append(row)
    forged["roles"]["test"]["fingerprints"].append(key)
    assert audit([forged]).leaks == [{"stage": "splits", "role": "test", "fingerprint": key, "row": row}]


def test_manifests_are_read_from_files(splits, tmp_path):
    splits.save(tmp_path / "splits")
    paths = [tmp_path / "splits" / "manifest.json"]
    for manifest in honest(splits):
        paths.append(tmp_path / f"{manifest['stage']}.json")
        paths[-1].write_text(json.dumps(manifest))
    assert audit(paths).clean
    with pytest.raises(DataError, match="expected a manifest in .*gone.json"):
        audit([tmp_path / "gone.json"])


def test_manifests_in_the_wrong_order(splits):
    with pytest.raises(DataError, match="expected the manifest of the splits first"):
        audit([*honest(splits), splits.manifest])
    with pytest.raises(DataError, match="one without 'fingerprints'"):
        audit([splits.manifest, splits.manifest])
    with pytest.raises(DataError, match="no manifest at all"):
        audit([])


def test_a_sound_table_raises_no_warning():
    assert inspect_texts(table(["good film", "bad film", "good", "bad", "film"], [0, 1, 0, 1, -1]), ["x", "y"]) == []


def test_inspection_of_labels_and_lengths():
    data = table(["a", "b", "", "d"], [0, 0, 0, 1], truncated=[True, False, False, True])
    warnings = inspect_texts(data, ["x", "y", "z"])
    assert len(warnings) == 4
    assert warnings[0].startswith("the class 'y' has one labeled row")
    assert warnings[1].startswith("the class 'z' has no labeled row")
    assert warnings[2].startswith("1 of 4 texts are empty")
    assert warnings[3].startswith("2 of 4 texts were longer than max_characters")


def test_inspection_of_nothing_but_empty_texts():
    with pytest.raises(DataError, match="got 2 rows whose text is empty"):
        inspect_texts(table(["", " "], [0, 1]), ["x", "y"])


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "named"),
    [
        (
            "a good film",
            "\u0445\u043e\u0440\u043e\u0448\u0438\u0439 \u0444\u0438\u043b\u044c\u043c",
            "Cyrillic, not Latin",
        ),
        ("\u597d\u7535\u5f71", "a good film", "Latin, not Han or Kana"),
        ("a good film", "ein guter Film, \u00e4u\u00dferst", None),
        (
            "\u6620\u753b\u306f\u3044\u3044",
            "\u3053\u308c\u306f\u6620\u753b\u3067\u3059\u304b",
            None,
        ),  # kanji and kana are one
        ("a good film", "12345 !!!", None),
    ],
)
def test_inspection_of_scripts(labeled, unlabeled, named):
    data = table([labeled] * 4 + [unlabeled] * 4, [0, 0, 1, 1, -1, -1, -1, -1])
    warnings = inspect_texts(data, ["x", "y"])
    assert [named in warning for warning in warnings] == ([True] if named else [])


def test_a_few_texts_in_another_script_are_no_reason_to_warn():
    data = table(["a good film"] * 14 + ["\u0444\u0438\u043b\u044c\u043c"] * 2, [0, 0, 1, 1] + [-1] * 12)
    assert inspect_texts(data, ["x", "y"]) == []


def test_a_released_part_may_be_learned_from_and_all_others_stay_guarded(splits):
    everything = concatenate_datasets(
        [splits["labeled"], splits["validation"].select_columns(splits["labeled"].column_names)]
    )
    refit = training_manifest("refit", everything, "labeled")
    assert not audit([splits.manifest, refit]).clean
    manifest = released(splits.manifest, "validation")
    assert audit([manifest, refit]).clean
    assert splits.manifest["roles"]["validation"]["ids"]  # the manifest itself is as it was
    for part in ("proxy", "test"):
        assert not audit([manifest, training_manifest("refit", splits[part], "labeled")]).clean


def folds(splits):
    """Manifests of two folds' models, each judged by the half of the labels that it has not learned."""
    halves = [splits["labeled"].select(range(number, len(splits["labeled"]), 2)) for number in (0, 1)]
    found = []
    for number, (seen, unseen) in enumerate((halves, halves[::-1])):
        teacher, student = f"folds/labels_only-{number}", f"cross_fitting/self_training-{number}"
        pool = splits["unlabeled"].select(range(5))
        found += [
            training_manifest("folds", seen, "labeled", model=teacher),
            evidence_manifest("folds", unseen, model=teacher),
            training_manifest("cross_fitting", seen, "labeled", model=student),
            training_manifest("cross_fitting", pool, "unlabeled", model=student, taught_by=[teacher]),
            evidence_manifest("cross_fitting", unseen, model=student),
        ]
    return halves, found


def test_models_of_folds_that_are_judged_by_labels_new_to_them_pass(splits):
    report = audit([splits.manifest, *honest(splits), *folds(splits)[1]])
    assert report.clean
    assert report.stages == ["pretext", "labels_only", "folds", "cross_fitting"]


def test_a_model_that_is_judged_by_a_label_that_it_has_learned_is_named(splits):
    halves, manifests = folds(splits)
    planted = training_manifest("folds", halves[1].select([3]), "labeled", model="folds/labels_only-0")
    report = audit([splits.manifest, *manifests, planted])
    assert not report.leaks
    assert not report.unknown
    key = fingerprint(halves[1]["text"][3])
    # The student has learned from this teacher, and is judged by the same rows.
    assert report.partial == [
        {"stage": stage, "model": model, "fingerprint": key, "row": 3}
        for stage, model in (("folds", "folds/labels_only-0"), ("cross_fitting", "cross_fitting/self_training-0"))
    ]
    with pytest.raises(
        DataError, match=r"got 2 that it, or .* has learned: row 3 of model 'folds/labels_only-0', row"
    ) as it:
        report.raise_if_leaky()
    assert "\n" not in str(it.value)


def test_a_student_whose_pool_was_labeled_by_a_model_that_knows_the_fold_is_named(splits):
    halves, manifests = folds(splits)
    few = splits["unlabeled"].select([7])
    planted = training_manifest(
        "cross_fitting",
        few,
        "unlabeled",
        model="cross_fitting/self_training-0",
        taught_by=["folds/labels_only-0", "folds/labels_only-1"],
    )
    partial = audit([splits.manifest, *manifests, planted]).partial
    assert {row["model"] for row in partial} == {"cross_fitting/self_training-0"}
    assert len(partial) == len(halves[1])
    # It is found over several steps, and in a circle.
    chain = [
        training_manifest("once", few, "unlabeled", model="a", taught_by=["b"]),
        training_manifest("once", few, "unlabeled", model="b", taught_by=["folds/labels_only-1", "a"]),
        evidence_manifest("once", halves[1].select([2]), model="a"),
    ]
    assert [row["model"] for row in audit([splits.manifest, *manifests, *chain]).partial] == ["a"]


def test_evidence_is_not_trained_on(splits):
    """Rows that only judge need not be training rows."""
    report = audit([splits.manifest, evidence_manifest("verdict", splits["validation"], model="labels_only")])
    assert report.clean
