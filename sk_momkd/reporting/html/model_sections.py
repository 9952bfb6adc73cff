"""Sections on the fitted models: memory, prototypes, attention maps, genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...data.omics import as_omics
from ...exceptions import BagError, OmicsError
from ...inspection.fitted import fitted_classifier
from ...inspection.genes import gene_attributions
from ...inspection.inspected_bags import transformed_bags
from ...inspection.memory import memory_usage
from ...inspection.memory_patches import top_patches
from ..displays.attention_map import AttentionMapDisplay
from ..displays.genes import GeneAttributionDisplay
from ..displays.memory_usage import MemoryUsageDisplay
from ..displays.prototypes import PrototypeDisplay, image_of, patch_pictures
from ..displays.style import shortened
from .blocks import Block, Paragraph, Picture, Pictures, Section, chart, photograph, table
from .context import ReportContext

_MOST = 200  # slides, or patients for the genes; more take minutes and change little
_MAP = 4.0  # width of an attention map in inches
_MOST_RUNS = 5  # lines in one figure
_NO_MODEL = "There is no fitted model. Use evaluate(..., keep_models=True), or pass one as model=."
_NO_BAGS = "Pass the cohort as bags= to fill this section."
_NO_COMPONENTS = "{} has no memory; this section is filled for MoMKDClassifier."


def memory_section(context: ReportContext) -> Section:
    """Active ratio and perplexity per epoch, and memory usage on test slides."""
    name, title = "memory", "Memory during training"
    if (why := _without_memory(context)) is not None:
        return Section(name, title, missing=why)
    runs = {f"fold {f}": m for (r, f), m in context.models.items() if r == 0}
    runs = dict(list(runs.items())[:_MOST_RUNS])
    draw = runs if len(runs) > 1 else context.model
    blocks: list[Block] = [
        Pictures(
            [
                chart(
                    lambda: MemoryUsageDisplay.from_estimator(draw),
                    "Memory usage per epoch",
                    "Components that any patch matched best in an epoch, and those that more than "
                    "1/(10 n) of a slide's patches did, with n components per class. Perplexity "
                    "is the effective number of components of a class.",
                ),
            ]
        )
    ]
    bags = _shown_bags(context)
    if bags is not None:
        usage = memory_usage(context.model, bags)
        blocks.append(
            table(
                usage.summary.dropna().T.rename_axis("measure"),
                f"Memory usage of {context.first_fold} on {len(bags)} slides",
            )
        )
    return Section(name, title, blocks)


def prototypes_section(context: ReportContext) -> Section:
    """The top patches of each component."""
    name, title = "prototypes", "Prototypes"
    if (why := _without_memory(context)) is not None:
        return Section(name, title, missing=why)
    bags = _shown_bags(context)
    if bags is None:
        return Section(name, title, missing=_NO_BAGS)
    patches = top_patches(context.model, bags, n=context.n_patches)
    blocks: list[Block] = [
        Paragraph(
            f"The {context.n_patches} patches with the largest cosine with each memory "
            "component of "
            f"{context.first_fold}, among {len(bags)} "
            + ("slides of its test fold." if len(context.models) > 1 else "slides."),
        )
    ]
    try:
        pictures = patch_pictures(patches, bags, context.images, context.mpp)
    except (BagError, OSError) as error:
        blocks.append(Paragraph(f"The patches are not drawn: {error}", "note"))
    else:
        blocks.append(
            Pictures(
                [
                    photograph(
                        lambda: PrototypeDisplay(patches, pictures).plot(),
                        "Top patches of each memory component",
                        "Each row is a component; the number below a patch is its cosine with "
                        "the component.",
                    )
                ]
            )
        )
    blocks.append(table(patches, "Positions of these patches", index=False, closed=True))
    return Section(name, title, blocks)


def slides_section(context: ReportContext) -> Section:
    """Attention maps of the best, worst and most uncertain predictions."""
    name, title = "slides", "Attention maps"
    if context.model is None:
        return Section(name, title, missing=_NO_MODEL)
    if context.bags is None:
        return Section(name, title, missing=_NO_BAGS)
    try:
        model = fitted_classifier(context.model)
    except TypeError as error:
        return Section(name, title, missing=str(error))
    blocks: list[Block] = [
        Paragraph(
            "Attention is multiplied by the number of patches, so that 1 corresponds to uniform "
            "attention. Attention shows where the model looks; it shows neither which class a "
            "region speaks for (patch_evidence does) nor that a region caused the prediction.",
            "note",
        )
    ]
    if (head := model._pooled_head) is not None:
        blocks.append(
            Paragraph(
                f"The network, whose attention this is, has {1 - head.share:.0%} of the logits. A "
                "regression on pooled patches, which looks at all of them alike, has the rest. The "
                "evidence of patches (patch_evidence) is that of both.",
                "note",
            )
        )
    for heading, rows in _shown_patients(context).items():
        pictures, left_out = _maps(context, rows)
        if pictures:
            blocks += [Paragraph(heading), Pictures(pictures)]
        blocks += [Paragraph(f"{heading}: {why}", "note") for why in dict.fromkeys(left_out)]
    return Section(name, title, blocks)


def genes_section(context: ReportContext) -> Section:
    """Genes with the largest attributions in the omics branch."""
    name, title = "genes", "Gene attributions"
    if (why := _without_memory(context)) is not None:
        return Section(name, title, missing=why)
    if context.omics is None:
        return Section(name, title, missing="Pass the omics as omics= to fill this section.")
    everyone = as_omics(context.omics)
    some = everyone.take(_evenly_spaced(len(everyone.ids)))
    try:
        found = gene_attributions(context.model, some, random_state=context.random_state)
    except (OmicsError, ImportError) as error:
        return Section(name, title, missing=str(error))
    caption = "Mean absolute attribution; the colour shows the class that high expression favours."
    return Section(
        name,
        title,
        [
            Paragraph(
                f"Attributions of the omics branch of {context.first_fold} to genes, for "
                f"{len(some.ids)} patients: how much each gene moves a profile toward the memory "
                "of a class. They describe the model, not biology; correlated genes share an "
                "attribution. Predictions do not use genes."
            ),
            Pictures([chart(lambda: GeneAttributionDisplay(found.genes).plot(), "Genes", caption)]),
            table(found.genes.head(100), "The first 100 genes", index=False, closed=True),
        ],
    )


def _without_memory(context: ReportContext) -> str | None:
    if context.model is None:
        return _NO_MODEL
    if not hasattr(context.classifier, "_memory"):
        return _NO_COMPONENTS.format(type(context.classifier).__name__)
    return None


def _shown_bags(context: ReportContext) -> Any:
    """Test bags of the first model, at most `_MOST`, spread over the cohort."""
    bags = context.test_bags()
    if bags is None or len(bags) <= _MOST:
        return bags
    return bags[_evenly_spaced(len(bags))]


def _evenly_spaced(n: int) -> NDArray:
    """Indices of `n` items, or of `_MOST` items spread evenly over them."""
    return np.linspace(0, n - 1, min(n, _MOST)).astype(int)


def _shown_patients(context: ReportContext) -> dict[str, pd.DataFrame]:
    """Patients to show, by heading; each patient is in one group only."""
    n = context.n_slides
    if context.result is None:
        names = list(context.of_patient())[:n]
        return {"The first slides": pd.DataFrame({"patient_id": names, "fold": 0})}
    table = context.patient_confidence()
    table = table[table["patient_id"].isin(context.of_patient())]
    order = table.sort_values("p_true", kind="stable")
    worst, best = order.head(n), order.iloc[n:].tail(n).iloc[::-1]
    rest = table.drop([*worst.index, *best.index])
    unsure = rest.sort_values("margin", kind="stable").head(n)
    return {
        "Best predictions, with the highest probability of the true class": best,
        "Worst predictions, with the lowest probability of the true class": worst,
        "Most uncertain predictions, with the two largest probabilities closest": unsure,
    }


def _maps(context: ReportContext, rows: pd.DataFrame) -> tuple[list[Picture], list[str]]:
    """Maps of the first slide of each patient, and reasons for maps that cannot be drawn."""
    pictures, left_out = [], []
    patients, bags = context.of_patient(), context.by_name()
    for row in rows.to_dict("records"):
        names = patients[row["patient_id"]]
        model = context.models.get((0, int(row["fold"])), context.model)
        try:
            bag = bags[names[0]]
            caption = _caption(row, names, len(bag.slides))
            pictures.append(_map(context, model, names[0], bag, caption))
        except (BagError, TypeError, OSError) as error:
            left_out.append(str(error))
    return pictures, left_out


def _map(context: ReportContext, model: Any, name: str, bag: Any, caption: str) -> Picture:
    if len(bag.slides) > 1:  # the first slide, as it is transformed among those of its patient
        _, transformed = transformed_bags(model, [bag])
        model, bag = fitted_classifier(model), transformed[0].slides[0]
    options = {
        "image": image_of(bag.bag_id or name, context.images),
        "mpp": context.mpp,
        "width": _MAP,
    }
    return photograph(
        lambda: AttentionMapDisplay.from_estimator(model, bag, **options),
        f"Attention map of {name}",
        caption,
    )


def _caption(row: Mapping[Any, Any], names: list[str], n_slides: int) -> str:
    n = n_slides if len(names) == 1 else len(names)
    more = f" (slide 1 of {n})" if n > 1 else ""
    about = f"{shortened(names[0])}, patient {row['patient_id']}{more}"
    if "p_true" not in row:
        return about
    return f"{about}: {row['y']}, predicted {row['predicted']}, p(true) {row['p_true']:.2f}"
