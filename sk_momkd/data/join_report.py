"""What was joined to what, as a table and as a few lines."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ..exceptions import CohortError
from .sequence import first_few


@dataclass(frozen=True)
class JoinReport:
    """What was joined to what, and what was left out.

    Attributes
    ----------
    slides : DataFrame
        One row per slide that occurs in the table or in the folder, with ``patient_id``,
        ``label``, ``has_omics`` and ``status`` (``"used"`` or why not).
    unmatched_omics : list of str
        Omics rows that belong to no slide in use.
    """

    slides: pd.DataFrame
    unmatched_omics: list[str]

    @property
    def left_out(self) -> pd.DataFrame:
        """The slides that are not in use."""
        return self.slides[self.slides["status"] != "used"]

    def by_site(self) -> pd.DataFrame:
        """Slides in use per site and label; for cohorts read with ``site=``.

        Raises
        ------
        CohortError
            If the cohort was read without a site column.
        """
        if "site" not in self.slides:
            raise CohortError("The cohort was read without sites; name their column, site=.")
        used = self.slides[self.slides["status"] == "used"]
        return pd.crosstab(used["site"], used["label"])

    def __str__(self) -> str:
        used = self.slides[self.slides["status"] == "used"]
        labels = ", ".join(f"{k}: {n}" for k, n in used["label"].value_counts().items())
        lines = [
            f"{len(used)} of {len(self.slides)} slides in use, "
            f"{used['patient_id'].nunique()} patients, labels {{{labels}}}",
            f"{int(used['has_omics'].sum())} slides with omics, "
            f"{int((~used['has_omics']).sum())} histology only, "
            f"{len(self.unmatched_omics)} omics rows without a slide in use"
            + (f" ({first_few(self.unmatched_omics)})" if self.unmatched_omics else ""),
        ]
        for status, rows in self.left_out.groupby("status"):
            lines.append(f"{len(rows)} left out, {status}: {first_few(rows['slide_id'])}")
        if "site" in self.slides:
            lines.append(f"slides per site and label:\n{self.by_site().to_string()}")
        return "\n".join(lines)
