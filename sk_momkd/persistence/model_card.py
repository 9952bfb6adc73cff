"""Model cards: Markdown with the block of metadata that model hubs read."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_FIELDS = {
    "name": "Name of the model",
    "cohort": "Patients, slides and sites of the training data",
    "labels": "What the classes mean and how they were measured",
    "intended_use": "Who may use the model, and for what",
    "limits": "Where it was not tested or does not work",
    "license": "Licence, as an identifier such as bsd-3-clause",
}
_UNSTATED = "Not stated."
_LIMITS = (
    "For research. The model is no medical device and was not validated for decisions on "
    "patients. Its probabilities refer to the prevalence below, and hold for slides that were "
    "stained, scanned and encoded as those of training."
)
_METRICS = (
    *("auroc", "fold_auroc", "auprc", "balanced_accuracy"),
    *("sensitivity", "specificity", "brier"),
)
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$!{}])")


def model_card(facts: Mapping[str, Any], card: Any, evaluation: Any) -> str:
    """Text of the card.

    Parameters
    ----------
    facts : mapping
        Of :func:`summary`.
    card : mapping or None
        Text of the user by field.
    evaluation : Evaluation or None

    Raises
    ------
    ValueError
        If `card` has a field that cards do not have, or one that is not text.
    """
    said = _checked(card)
    name = said.get("name") or facts.get("classifier") or facts["estimator"]
    sections = [
        _metadata(name, said, evaluation),
        f"# {escaped(name)}",
        _what_it_is(facts),
        f"## Intended use\n\n{escaped(said.get('intended_use', _UNSTATED))}",
        f"## Limits\n\n{escaped(said['limits']) if 'limits' in said else _LIMITS}",
        f"## Cohort\n\n{escaped(said.get('cohort', _UNSTATED))}\n\n{_features(facts)}",
        f"## Labels\n\n{escaped(said.get('labels', _UNSTATED))}\n\n{_classes(facts)}",
        f"## Results\n\n{_results(evaluation)}",
        f"## Training\n\n{_bullets(facts.get('training', {}))}",
        _HOW_TO_LOAD,
    ]
    return "\n\n".join(part.strip() for part in sections if part.strip()) + "\n"


_HOW_TO_LOAD = """## Use

```python
from sk_momkd import load_model

model = load_model("path of this folder or zip file")
model.predict_proba(bags)
```

No code in the files is executed. `sk_momkd.json` lists the versions that wrote them and the SHA-256
of each part."""


def escaped(text: Any) -> str:
    """Text that Markdown and HTML show as it is, in one line.

    Examples
    --------
    >>> escaped("<b> HER2")
    '&lt;b&gt; HER2'
    """
    visible = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in str(text))
    plain = _SPECIAL.sub(lambda m: m[1] if m[1] in "<>" else f"\\{m[1]}", visible.strip())
    plain = html.escape(plain, quote=False)
    return f"\\{plain}" if plain.startswith(("-", "+", "=")) else plain


def _checked(card: Any) -> dict[str, str]:
    if card is None:
        return {}
    if not isinstance(card, Mapping):
        raise ValueError(f"card must be a mapping of text by field, got {type(card).__name__}.")
    for field, text in card.items():
        if field not in _FIELDS:
            known = "; ".join(f"{key}: {what}" for key, what in _FIELDS.items())
            raise ValueError(f"A model card has no field {field!r}. The fields are {known}.")
        if not isinstance(text, str):
            raise ValueError(f"card[{field!r}] must be text, got {type(text).__name__}.")
    return dict(card)


def _metadata(name: str, said: Mapping[str, str], evaluation: Any) -> str:
    """The YAML block; JSON is YAML, so text of any content is quoted as in JSON."""
    lines: dict[str, Any] = {
        "license": said.get("license", "unknown"),
        "library_name": "sk_momkd",
        "tags": ["sk_momkd", "computational-pathology", "multiple-instance-learning"],
    }
    if evaluation is not None:
        metrics = [
            {"type": metric, "value": round(float(row["value"]), 4)}
            for metric, row in _shown(evaluation)
        ]
        task = {"type": "image-classification"}
        dataset = {"name": said.get("cohort", _UNSTATED), "type": "private"}
        results = [{"task": task, "dataset": dataset, "metrics": metrics}]
        lines["model-index"] = [{"name": name, "results": results}]
    return "\n".join(["---", *(f"{k}: {json.dumps(v)}" for k, v in lines.items()), "---"])


def _what_it_is(facts: Mapping[str, Any]) -> str:
    kind = facts.get("classifier", facts["estimator"])
    text = f"A {escaped(kind)} of sk_momkd, which works on the features of the patches of slides."
    steps = facts.get("steps")
    return f"{text} Steps: {', '.join(map(escaped, steps))}." if steps else text


def _features(facts: Mapping[str, Any]) -> str:
    known = {"n_features": facts.get("n_features"), **facts.get("features", {})}
    stated = {key: value for key, value in known.items() if value is not None}
    return f"Features of the training slides, as their files state them:\n\n{_bullets(stated)}"


def _classes(facts: Mapping[str, Any]) -> str:
    classes, shares = facts.get("classes", ()), facts.get("prevalence")
    rows = [
        f"| {escaped(c)} | {'' if shares is None else f'{shares[i]:.3f}'} |"
        for i, c in enumerate(classes)
    ]
    table = "\n".join(["| class | share in training |", "|---|---|", *rows])
    positive = facts.get("positive_class")
    last = "" if positive is None else f"\n\nPositive class: {escaped(positive)}."
    if "threshold" in facts:
        last += f"\n\nThreshold of `predict`: {facts['threshold']:.4f}."
        last += f" {escaped(facts['threshold_source'])}." if "threshold_source" in facts else ""
    return table + last


def _shown(evaluation: Any) -> list[tuple[str, Any]]:
    found = evaluation.summary
    return [
        (metric, found.loc[metric])
        for metric in _METRICS
        if metric in found.index and found.loc[metric, "value"] == found.loc[metric, "value"]
    ]


def _results(evaluation: Any) -> str:
    if evaluation is None:
        return "No evaluation was given when the model was saved."
    rows = [
        f"| {metric} | {row['value']:.3f} | {row['low']:.3f} to {row['high']:.3f} |"
        for metric, row in _shown(evaluation)
    ]
    table = "\n".join(["| metric | value | interval |", "|---|---|---|", *rows])
    said = [escaped(text) for text in (evaluation.headline, evaluation.note) if text]
    out_of_fold = (
        "Predictions of patients that the fitting model had not seen; this model was fitted after."
    )
    return "\n\n".join([*said, out_of_fold, table])


def _bullets(facts: Mapping[str, Any]) -> str:
    lines = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {v:.4g}" for k, v in value.items() if isinstance(v, float))
        lines.append(f"- {escaped(key)}: {escaped(value)}")
    return "\n".join(lines) or _UNSTATED
