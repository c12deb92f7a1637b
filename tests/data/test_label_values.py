"""Labels as spreadsheets spell them: missing values, variants, numbers, slips."""

from __future__ import annotations

import pytest

from hfssl.data.label_names import missing_list, name_key, one_edit
from hfssl.data.label_values import LabelOptions, decode_labels
from tests.helpers.refusals import refusal


def decoded(values, **options):
    label_options = LabelOptions(options.pop("missing", None), options.pop("keep_variants", False))
    numbers, names, notices = decode_labels(
        values, lambda row: f"row {row}", "t.csv", options=label_options, **options
    )
    return [names[n] if n >= 0 else None for n in numbers], names, notices


@pytest.mark.parametrize("nothing", ["#N/A", "n/a", "NULL", "nan", "None", "-", "?", "<NA>", " N/A ", "#NV", "（空）"])
def test_words_for_nothing_are_unlabeled_and_counted(nothing):
    labels, names, notices = decoded(
        ["a", "a", "b", "b", nothing], missing=["（空）"] if nothing == "（空）" else None
    )
    assert labels == ["a", "a", "b", "b", None]
    assert names == ["a", "b"]
    assert f"in 1 row of 't.csv' the label means unlabeled: '{nothing.strip()}' (1)" in notices[0]


def test_words_for_nothing_that_are_named_are_classes():
    values = ["None", "spam", "None", "-"]
    assert decoded(values, given_names=["None", "spam"])[0] == ["None", "spam", "None", None]
    assert decoded(values[:3], names_file=["None", "spam"])[0] == ["None", "spam", "None"]
    assert decoded([0, 1, 0], own_names=["None", "spam"])[0] == ["None", "spam", "None"]


def test_a_doubtful_word_as_frequent_as_a_class_is_asked_for():
    values = ["a"] * 5 + ["b"] * 4 + ["None"] * 4
    message = refusal(decoded, values)
    assert "whether 'None' is a class or means unlabeled, because 4 rows" in message
    assert "--missing-labels=None" in message
    assert '--class-names="a,b,None"' in message
    assert decoded(values, missing=["None"])[0][-1] is None
    assert decoded(values, given_names=["a", "b", "None"])[0][-1] == "None"
    assert decoded(["a"] * 5 + ["b"] * 4 + ["#N/A"] * 40)[1] == ["a", "b"]  # nobody names a class so


def test_the_list_of_missing_labels_replaces_the_usual_one():
    assert missing_list("-1, unknown") == ["-1", "unknown"]
    labels, names, _ = decoded(["a", "Unknown", "n/a", "b", ""], missing=["unknown"])
    assert labels == ["a", None, "n/a", "b", None]
    assert decoded(["a", "n/a", "b"], missing=missing_list(","))[1] == ["a", "b", "n/a"]


@pytest.mark.parametrize(
    ("options", "labels", "told"),
    [
        ({}, ["1", "-1", "0"], "the label -1 is a class in 1 row of 't.csv'"),
        ({"missing": ["-1"]}, ["1", None, "0"], "the label -1 means unlabeled in 1 row of 't.csv'."),
        ({"is_dataset": True}, ["1", None, "0"], "the label -1 means unlabeled in 1 row of 't.csv'."),
        ({"given_names": ["no", "yes"]}, ["yes", None, "no"], "the label -1 means unlabeled in 1 row of 't.csv'."),
    ],
)
def test_minus_one(options, labels, told):
    got, _, notices = decoded([1, -1, 0], **options)
    assert got == labels
    assert notices[0].startswith(told)


def test_names_of_a_class_label_are_never_read_as_numbers_or_nothing():
    for names in (["+1", "-1", "0"], ["2.0", "1.0", "10.0"], ["nan", "a", "A"]):
        labels, got, notices = decoded([0, 1, 2, 0, -1], own_names=names)
        assert labels == [names[0], names[1], names[2], names[0], None]
        assert got == names
        assert notices == ["the label -1 means unlabeled in 1 row of 't.csv'."]


def test_variants_of_a_name_are_joined_and_told():
    variants = ["Größe", "größe ", "GRO\u0308ẞE", "Gr\u200böße", "\u00a0Größe", "Größe"]
    labels, names, notices = decoded([*variants, "b"])
    assert names == ["Größe", "b"]
    assert labels == ["Größe"] * 6 + ["b"]
    assert "variants of label names are joined in 4 rows of 't.csv' ('größe ' with 'Größe'" in notices[0]
    assert len(decoded([*variants, "b"], keep_variants=True)[1]) == 5  # only ends are stripped
    assert decoded(["POS", "neg "], given_names=["neg", "pos"])[0] == ["pos", "neg"]
    assert decoded(["a", "A"], given_names=["a", "A"])[0] == ["a", "A"]
    assert name_key(" A\u200b  b ") == "a b"


def test_numbers_have_one_spelling():
    assert decoded(["1.0", "0.0", "10", ""])[:2] == (["1", "0", "10", None], ["0", "1", "10"])
    assert decoded(["1,0", "2,0", "1"])[1] == ["1", "2"]
    assert decoded(["0.5", "10.5", "2.50"])[1] == ["0.5", "2.5", "10.5"]
    labels, names, notices = decoded(["1", "1.0", "01", "2"])
    assert labels == ["1", "1", "01", "2"]
    assert "the labels '01' and '1' are two classes" in notices[-1]
    assert decoded(["1.0", "2.0", "3"], given_names=["1", "2", "3"])[0] == ["1", "2", "3"]
    assert "got '4' at row 1" in refusal(decoded, ["1", "4"], given_names=["1", "2"])


def test_digits_of_other_scripts_are_told():
    labels, _, notices = decoded(["١", "٢", "١"])
    assert labels == ["١", "٢", "١"]
    assert "have digits that are not 0 to 9 ('١', '٢')" in notices[0]
    assert decoded(["１", "1", "2"])[0] == ["1", "1", "2"]


def test_many_numbers_look_like_scores():
    scores = [str(round(0.37 * i, 2)) for i in range(40)]
    assert "got 40 different numbers from 0 to 14.43, which look like scores" in refusal(decoded, scores)
    assert "look like scores" in refusal(decoded, [i * 7 for i in range(40)])
    assert len(decoded(list(range(77)) * 2)[1]) == 77  # numbers of classes
    assert len(decoded(scores, given_names=scores)[1]) == 40


@pytest.mark.parametrize(
    ("one", "other", "close"),
    [
        ("Biling", "Billing", True),
        ("Billimg", "Billing", True),
        ("Bliling", "Billing", True),
        ("Billing", "Travel", False),
        ("cat", "car", False),  # another word
        ("class1", "class2", False),  # another number
    ],
)
def test_one_edit(one, other, close):
    assert one_edit(one, other) is one_edit(other, one) is close


def test_a_class_of_one_row_beside_a_large_one_is_named():
    _, _, notices = decoded(["Billing"] * 5 + ["Biling"] + ["Travel"] * 2)
    assert notices == [
        "the class 'Biling' has one row and is one letter away from 'Billing' (5 rows); correct it if it is a slip."
    ]


def test_labels_of_other_kinds():
    assert decoded([True, False, "true"])[1] == ["False", "True"]
    assert "got a list at row 1" in refusal(decoded, ["a", ["b"]])
    assert "different values in 60 labeled rows" in decoded([f"text {i} of" + "x" * i for i in range(60)])[2][-1]
