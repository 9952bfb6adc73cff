"""Section on the cohort: which slides and patients are in it, and why others are not."""

from __future__ import annotations

import pandas as pd

from .blocks import Block, Flow, Paragraph, Section, listed, table
from .context import ReportContext


def cohort_section(context: ReportContext) -> Section:
    """Numbers of slides and patients, and the reasons for exclusions."""
    name, title = "cohort", "Cohort"
    if context.join is None:
        patients = _patients_line(context)
        return Section(
            name,
            title,
            [Paragraph(patients)] if patients else [],
            "Exclusions are unknown. Pass the join report of load_cohort(...) as join= to list "
            "them.",
        )
    join = context.join
    blocks: list[Block] = [Flow(_flow(context, join.slides))]
    if len(join.left_out):
        columns = [c for c in ("slide_id", "patient_id", "status") if c in join.left_out]
        blocks.append(
            table(
                join.left_out[columns],
                "Excluded slides",
                index=False,
                closed=len(join.left_out) > 20,
            )
        )
    if len(join.changed_ids):
        caption = "Ids that the files write otherwise"
        blocks.append(table(join.changed_ids, caption, index=False, closed=True))
    if "site" in join.slides:
        blocks.append(table(join.by_site(), "Included slides by site and label", closed=True))
    return Section(name, title, blocks)


def _flow(context: ReportContext, slides: pd.DataFrame) -> list[tuple[str, list[str]]]:
    used = slides[slides["status"] == "used"]
    left = slides[slides["status"] != "used"]
    reasons = [
        f"{len(rows)} excluded, {why}: {listed(rows['slide_id'].tolist())}"
        for why, rows in left.groupby("status")
    ]
    counts = used["label"].value_counts().items() if "label" in used else ()
    text = str if context.join is None else context.join.label_text
    labels = ", ".join(f"{n} x {text(k)}" for k, n in counts) or "no labels"
    with_omics = int(used["has_omics"].sum())
    join = context.join
    unmatched = [] if join is None else join.unmatched_omics
    out = [f"{len(unmatched)} omics rows without an included slide: {listed(unmatched)}"]
    for status, rows in () if join is None else join.omics_left_out.groupby("status"):
        out.append(f"{len(rows)} omics rows excluded, {status}: {listed(rows['id'].tolist())}")
    steps = [
        (f"{len(slides)} slides in the table or in the folder", reasons),
        (f"{len(used)} slides included, {used['patient_id'].nunique()} patients ({labels})", []),
        (
            f"{with_omics} slides with omics, {len(used) - with_omics} without omics",
            out if unmatched or len(out) > 1 else [],
        ),
    ]
    if context.result is not None:
        n = len(context.patient_confidence())
        steps.append((f"{n} patients with predictions", []))
    return steps


def _patients_line(context: ReportContext) -> str:
    if context.result is not None:
        return context.result.headline
    if context.bags is None:
        return ""
    return f"{len(context.bags)} slides of {len(context.of_patient())} patients."
