"""Model cards state what is known, show text as it is, and name no patient."""

import json

import numpy as np
import pytest
from conftest import make_bags
from persistence.fitted import PATIENTS, fitted
from quick import quick
from sklearn.dummy import DummyClassifier

from sk_momkd import evaluate, save_model
from sk_momkd.persistence.model_card import escaped, model_card
from sk_momkd.persistence.model_facts import summary

FACTS = {
    "estimator": "MoMKDClassifier",
    "classifier": "MoMKDClassifier",
    "classes": ["HER2-", "<b>|HER2+"],
    "positive_class": "<b>|HER2+",
    "prevalence": [0.8, 0.2],
    "n_features": 1024,
    "features": {"encoder": "uni_v2", "magnification": 20.0},
    "threshold": 0.25,
}


def metadata(card):
    """The block of a card, which is JSON line by line."""
    start, block, _ = card.split("---\n", 2)
    assert start == ""
    return {k: json.loads(v) for k, v in (line.split(": ", 1) for line in block.splitlines())}


def test_card_states_classes_features_prevalence_and_threshold():
    card = model_card(FACTS, None, None)
    assert metadata(card)["license"] == "unknown"
    assert "| HER2- | 0.800 |" in card
    assert r"| &lt;b&gt;\|HER2+ | 0.200 |" in card
    assert "- encoder: uni\\_v2" in card
    assert "Threshold of `predict`: 0.2500." in card
    assert "No evaluation was given" in card


def test_card_states_the_share_of_a_regression_on_pooled_slides():
    bags, y = make_bags()
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False)
    alone = model_card(summary(clf.fit(bags, y)), None, None)
    both = model_card(summary(clf.set_params(pooled_share=0.75).fit(bags, y)), None, None)
    assert r"- pooled\_share: 0.75" in both
    assert "pooled" not in alone


def test_card_holds_the_results_of_an_evaluation_and_no_patient():
    bags, y = make_bags(40, patients=[f"TCGA-{i:04d}" for i in range(40)])
    result = evaluate(
        DummyClassifier(strategy="stratified", random_state=0), bags, y, n_bootstrap=20
    )
    card = model_card(FACTS, {"cohort": "40 patients of one site"}, result)
    row = result.summary.loc["auroc"]
    assert f"| auroc | {row['value']:.3f} | {row['low']:.3f} to {row['high']:.3f} |" in card
    assert "40 patients" in card
    assert "5 folds" in card
    assert "TCGA-" not in card
    (entry,) = metadata(card)["model-index"]
    metrics = {m["type"]: m["value"] for m in entry["results"][0]["metrics"]}
    assert metrics["auroc"] == pytest.approx(row["value"], abs=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "---\nlicense: mit",
        "# Title",
        "<script>",
        "[a](javascript:b)",
        "a | b",
        "`c`",
        "\u202eabc",
        "- a",
    ],
)
def test_text_of_a_user_is_text(text):
    card = model_card(FACTS, {"cohort": text, "license": text, "name": text}, None)
    assert metadata(card) == metadata(model_card(FACTS, None, None)) | {"license": text}
    body = card.split("---\n", 2)[2]
    shown = escaped(text)
    assert f"## Cohort\n\n{shown}\n" in body
    assert "\n" not in shown
    assert not set("<>\u202e") & set(shown)
    assert "<script" not in body
    assert "\n# Title" not in body.replace("\n# \\# Title", "")


def test_unknown_field_or_value_of_a_card_is_refused(tmp_path):
    for card, message in (
        ({"licence": "mit"}, "no field 'licence'. The fields are name: .*license: "),
        ({"limits": 3}, r"card\['limits'\] must be text"),
        ("text", "must be a mapping"),
    ):
        with pytest.raises(ValueError, match=message):
            save_model(fitted("BagPooling"), tmp_path / "model", card=card)
    assert list(tmp_path.iterdir()) == []


def test_card_of_a_saved_model_is_beside_it(tmp_path):
    path = save_model(fitted("MoMKDClassifier"), tmp_path / "model", card={"limits": "Breast."})
    card = (path / "README.md").read_text()
    assert "Breast." in card
    assert "n\\_epochs: 1" in card
    assert not [patient for patient in PATIENTS if patient in card]
    facts = json.loads((path / "model.json").read_text())["summary"]
    assert facts["classes"] == ["neg", "pos"]
    assert facts["n_features"] == 6
    np.testing.assert_allclose(facts["prevalence"], fitted("MoMKDClassifier").class_prior_)
