"""Section on reproducing the run: seeds, parameters, versions, hashes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from ...data.omics import as_omics
from ...evaluation.routing import final_estimator
from ...versions import facts
from .blocks import Block, Paragraph, Section, table
from .context import ReportContext


def reproducibility_section(context: ReportContext) -> Section:
    """Seeds, parameters and versions for repeating the run, and hashes for comparing it."""
    blocks: list[Block] = []
    if context.model is None:
        blocks.append(
            Paragraph(
                "No model was kept, so parameters and seeds are unknown. Use "
                "evaluate(..., keep_models=True) to list them.",
                "note",
            )
        )
    else:
        blocks.append(
            table(
                _seeds(context),
                "Models and their seeds",
                index=False,
                closed=len(context.models) > 5,
            )
        )
        blocks.append(
            table(
                _parameters(context.model),
                "Parameters of the first model",
                index=False,
                closed=True,
            )
        )
    blocks.append(table(_hashes(context), "Hashes (SHA-256)", index=False))
    versions = pd.DataFrame(facts().items(), columns=["package", "version"])
    blocks.append(
        table(
            versions,
            "Versions of packages on the machine that wrote this page",
            index=False,
            closed=True,
        )
    )
    return Section("run", "Reproducibility", blocks)


def _seeds(context: ReportContext) -> pd.DataFrame:
    rows = []
    for (repeat, fold), model in context.models.items():
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


def _hashes(context: ReportContext) -> pd.DataFrame:
    """Hashes of the contents; of omics, of its float32 values and all names."""
    rows = {}
    if context.result is not None:
        rows["predictions, as CSV"] = _of_table(context.result.predictions)
        rows["summary, as CSV"] = _of_table(context.result.summary.reset_index())
    if context.bags is not None:
        bags = pd.DataFrame(
            {
                "bag": list(context.by_name()),
                "patient": [bag.patient_id for bag in context.bags],
                "label": [context.labels.get(name) for name in context.by_name()],
            }
        )
        rows["slides, patients and labels, as CSV"] = _of_table(bags)
    if context.omics is not None:
        omics = as_omics(context.omics)
        frame = omics.rows(np.arange(len(omics.ids)))
        digest = hashlib.sha256("\n".join([*map(str, omics.ids), *map(str, omics.genes)]).encode())
        digest.update(np.ascontiguousarray(frame.to_numpy()).tobytes())
        rows["omics"] = digest.hexdigest()
    if context.model is not None:
        rows["weights of the first model"] = _weights(context.classifier)
    return pd.DataFrame(rows.items(), columns=["content", "hash"])


def _of_table(frame: pd.DataFrame) -> str:
    return hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()


def _weights(classifier: Any) -> str:
    """Hash of all tensors of the network and their names; empty without a network."""
    module = getattr(classifier, "module_", None)
    if module is None:
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().double().numpy().tobytes())
    return digest.hexdigest()
