"""Section on how to repeat the run: seeds, parameters, versions, hashes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from ...data.omics import as_omics
from ...evaluation.routing import final_estimator
from ...versions import facts
from .blocks import Block, Paragraph, Section, table
from .subject import Subject


def run_section(subject: Subject) -> Section:
    """What somebody needs to repeat the run and to see that it is the same."""
    blocks: list[Block] = []
    if subject.model is None:
        blocks.append(
            Paragraph(
                "No model was kept, so its parameters and seeds are not known here: "
                "evaluate(..., keep_models=True).",
                "note",
            )
        )
    else:
        blocks.append(
            table(
                _seeds(subject),
                "Models and their seeds",
                index=False,
                closed=len(subject.models) > 5,
            )
        )
        blocks.append(
            table(
                _parameters(subject.model),
                "Parameters of the first model",
                index=False,
                closed=True,
            )
        )
    blocks.append(table(_hashes(subject), "SHA-256", index=False))
    versions = pd.DataFrame(facts().items(), columns=["what", "version"])
    blocks.append(
        table(versions, "Versions on the machine that wrote this page", index=False, closed=True)
    )
    return Section("run", "To repeat this run", blocks)


def _seeds(subject: Subject) -> pd.DataFrame:
    rows = []
    for (repeat, fold), model in subject.models.items():
        last = final_estimator(model)
        rows.append(
            {
                "repeat": repeat,
                "fold": fold,
                "estimator": type(last).__name__,
                "random_state": str(getattr(last, "random_state", "")),
                "epochs": getattr(last, "n_iter_", ""),
                "weights (SHA-256, first 16)": _weights(last)[:16],
            }
        )
    return pd.DataFrame(rows)


def _parameters(model: Any) -> pd.DataFrame:
    known = model.get_params(deep=True)
    plain = {k: v for k, v in known.items() if not hasattr(v, "get_params")}
    rows = [(k, str(v)) for k, v in sorted(plain.items()) if k not in ("steps", "memory")]
    return pd.DataFrame(rows, columns=["parameter", "value"])


def _hashes(subject: Subject) -> pd.DataFrame:
    """Equal hashes, equal contents; of the omics its values as float32, with all names."""
    rows = {}
    if subject.result is not None:
        rows["predictions, as CSV"] = _of_table(subject.result.predictions)
        rows["summary, as CSV"] = _of_table(subject.result.summary.reset_index())
    if subject.bags is not None:
        bags = pd.DataFrame(
            {
                "bag": list(subject.by_name()),
                "patient": [bag.patient_id for bag in subject.bags],
                "label": [subject.labels.get(name) for name in subject.by_name()],
            }
        )
        rows["slides, patients and labels, as CSV"] = _of_table(bags)
    if subject.omics is not None:
        omics = as_omics(subject.omics)
        frame = omics.rows(np.arange(len(omics.ids)))
        digest = hashlib.sha256("\n".join([*map(str, omics.ids), *map(str, omics.genes)]).encode())
        digest.update(np.ascontiguousarray(frame.to_numpy()).tobytes())
        rows["omics"] = digest.hexdigest()
    if subject.model is not None:
        rows["weights of the first model"] = _weights(subject.classifier)
    return pd.DataFrame(rows.items(), columns=["of", "hash"])


def _of_table(frame: pd.DataFrame) -> str:
    return hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()


def _weights(classifier: Any) -> str:
    """Of all tensors of the network with their names; empty where there is no network."""
    module = getattr(classifier, "module_", None)
    if module is None:
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().double().numpy().tobytes())
    return digest.hexdigest()
