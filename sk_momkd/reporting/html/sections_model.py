"""Sections on what the models saw: memory, prototypes, slides, genes."""

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
from ...inspection.memory import memory_usage
from ...inspection.memory_patches import top_patches
from ..displays.attention_map import AttentionMapDisplay
from ..displays.genes import GeneAttributionDisplay
from ..displays.memory import MemoryUsageDisplay
from ..displays.prototypes import PrototypeDisplay, image_of, patch_pictures
from ..displays.style import shortened
from .blocks import Block, Paragraph, Picture, Pictures, Section, chart, photograph, table
from .subject import Subject

_MOST = 200  # slides, or patients' genes: more would take minutes and show the same
_MAP = 4.0  # inches, of a heat map
_MOST_RUNS = 5  # lines in one figure
_NO_MODEL = (
    "There is no fitted model here: use evaluate(..., keep_models=True), or pass one as model=."
)
_NO_BAGS = "Pass the cohort as bags= to fill this section."
_NO_COMPONENTS = "{} has no memory; this section is about MoMKDClassifier."


def memory_section(subject: Subject) -> Section:
    """Active ratio and perplexity per epoch, and usage on slides that were not trained on."""
    name, title = "memory", "Memory while training"
    if (why := _without_memory(subject)) is not None:
        return Section(name, title, missing=why)
    runs = {f"fold {f}": m for (r, f), m in subject.models.items() if r == 0}
    runs = dict(list(runs.items())[:_MOST_RUNS])
    draw = runs if len(runs) > 1 else subject.model
    blocks: list[Block] = [
        Pictures(
            [
                chart(
                    lambda: MemoryUsageDisplay.from_estimator(draw),
                    "Memory usage per epoch",
                    "Active: used by more than a tenth of an even share. Perplexity: how many "
                    "components would be used evenly.",
                ),
            ]
        )
    ]
    bags = _some(subject)
    if bags is not None:
        usage = memory_usage(subject.model, bags)
        blocks.append(
            table(
                usage.summary.dropna().T.rename_axis("measure"),
                f"Usage of {subject.first_fold} on {len(bags)} slides, by what counts",
            )
        )
    return Section(name, title, blocks)


def prototypes_section(subject: Subject) -> Section:
    """The top patches of each component."""
    name, title = "prototypes", "Prototypes"
    if (why := _without_memory(subject)) is not None:
        return Section(name, title, missing=why)
    bags = _some(subject)
    if bags is None:
        return Section(name, title, missing=_NO_BAGS)
    patches = top_patches(subject.model, bags, n=subject.n_patches)
    blocks: list[Block] = [
        Paragraph(
            f"The {subject.n_patches} patches that each memory component of {subject.first_fold} "
            f"matches best, among {len(bags)} slides"
            + (" that it was not trained on." if len(subject.models) > 1 else "."),
        )
    ]
    try:
        pictures = patch_pictures(patches, bags, subject.images, subject.mpp)
    except (BagError, OSError) as error:
        blocks.append(Paragraph(f"Not drawn: {error}", "note"))
    else:
        blocks.append(
            Pictures(
                [
                    photograph(
                        lambda: PrototypeDisplay(patches, pictures).plot(),
                        "Top patches of each memory component",
                        "A row per component; below each patch its cosine with the component.",
                    )
                ]
            )
        )
    blocks.append(table(patches, "Where these patches lie", index=False, closed=True))
    return Section(name, title, blocks)


def slides_section(subject: Subject) -> Section:
    """Heat maps of the best, the worst and the most uncertain slides."""
    name, title = "slides", "Where the model looked"
    if subject.model is None:
        return Section(name, title, missing=_NO_MODEL)
    if subject.bags is None:
        return Section(name, title, missing=_NO_BAGS)
    try:
        fitted_classifier(subject.model)
    except TypeError as error:
        return Section(name, title, missing=str(error))
    blocks: list[Block] = [
        Paragraph(
            "Attention as a multiple of an even share: 1 is what each patch had if all counted "
            "alike. Attention tells where the model looked, not that a region caused the "
            "prediction.",
            "note",
        )
    ]
    for heading, rows in _chosen(subject).items():
        pictures, left_out = _maps(subject, rows)
        if pictures:
            blocks += [Paragraph(heading), Pictures(pictures)]
        blocks += [Paragraph(f"{heading}: {why}", "note") for why in dict.fromkeys(left_out)]
    return Section(name, title, blocks)


def genes_section(subject: Subject) -> Section:
    """The genes that pulled hardest while training."""
    name, title = "genes", "Genes that taught"
    if (why := _without_memory(subject)) is not None:
        return Section(name, title, missing=why)
    if subject.omics is None:
        return Section(name, title, missing="Pass the omics as omics= to fill this section.")
    everyone = as_omics(subject.omics)
    some = everyone.take(_spread(len(everyone.ids)))
    try:
        found = gene_attributions(subject.model, some, random_state=subject.random_state)
    except (OmicsError, ImportError) as error:
        return Section(name, title, missing=str(error))
    caption = "Mean size of the pull; the colour is the class that high expression pulls toward."
    return Section(
        name,
        title,
        [
            Paragraph(
                f"How genes pull the profiles of {len(some.ids)} patients toward a class in the "
                f"memory of {subject.first_fold}. This describes the model, not biology: "
                "correlated genes share credit. Prediction does not use genes."
            ),
            Pictures([chart(lambda: GeneAttributionDisplay(found.genes).plot(), "Genes", caption)]),
            table(found.genes.head(100), "The first 100 genes", index=False, closed=True),
        ],
    )


def _without_memory(subject: Subject) -> str | None:
    if subject.model is None:
        return _NO_MODEL
    if not hasattr(subject.classifier, "_memory"):
        return _NO_COMPONENTS.format(type(subject.classifier).__name__)
    return None


def _some(subject: Subject) -> Any:
    """Bags that the first model was not trained on, not too many, spread over the cohort."""
    bags = subject.tested()
    if bags is None or len(bags) <= _MOST:
        return bags
    return bags[_spread(len(bags))]


def _spread(n: int) -> NDArray:
    """Positions of `n` things, or of so many spread over them as take seconds, not minutes."""
    return np.linspace(0, n - 1, min(n, _MOST)).astype(int)


def _chosen(subject: Subject) -> dict[str, pd.DataFrame]:
    """Patients to show; each stands in one of the rows only."""
    n = subject.n_slides
    if subject.result is None:
        names = list(subject.of_patient())[:n]
        return {"The first slides": pd.DataFrame({"patient_id": names, "fold": 0})}
    table = subject.confidence_of_patients()
    table = table[table["patient_id"].isin(subject.of_patient())]
    order = table.sort_values("p_true", kind="stable")
    worst, best = order.head(n), order.iloc[n:].tail(n).iloc[::-1]
    rest = table.drop([*worst.index, *best.index])
    unsure = rest.sort_values("margin", kind="stable").head(n)
    return {
        "Best: the highest probability of the true class": best,
        "Worst: the lowest probability of the true class": worst,
        "Most uncertain: the two most probable classes lie closest": unsure,
    }


def _maps(subject: Subject, rows: pd.DataFrame) -> tuple[list[Picture], list[str]]:
    """Maps of the first slide of each patient, and why some could not be drawn."""
    pictures, left_out = [], []
    patients, bags = subject.of_patient(), subject.by_name()
    for row in rows.to_dict("records"):
        names = patients[row["patient_id"]]
        model = subject.models.get((0, int(row["fold"])), subject.model)
        try:
            bag = bags[names[0]]
            caption = _caption(row, names, len(bag.slides))
            pictures.append(_map(subject, model, names[0], bag, caption))
        except (BagError, TypeError, OSError) as error:
            left_out.append(str(error))
    return pictures, left_out


def _map(subject: Subject, model: Any, name: str, bag: Any, caption: str) -> Picture:
    bag = bag.slides[0]  # of a patient's bag; itself otherwise
    options = {
        "image": image_of(bag.bag_id or name, subject.images),
        "mpp": subject.mpp,
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
