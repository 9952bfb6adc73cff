"""Report on the join of a cohort: tables, and a summary to print."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from ..data.sequence import BagSequence
from ..exceptions import CohortError
from ..messages import first_few
from .geometry import check_geometry, geometry_lines
from .slide_files import WITHOUT_UUID

_MOST_SITES = 12  # in the printed report; a TCGA cohort has forty


@dataclass(frozen=True)
class JoinReport:
    """How slides, feature files and omics were joined, and what was left out.

    Attributes
    ----------
    slides : DataFrame
        One row per slide that occurs in the table or in the folder, with ``patient_id``,
        ``label``, ``has_omics``, ``matched_by`` (how its file was found) and ``status``
        (``"used"`` or why not); with TCGA barcodes also ``site`` and ``sample_type``.
    unmatched_omics : list of str
        Omics rows that belong to no slide in use.
    omics_left_out : DataFrame
        ``id`` and ``status`` of omics rows that were left out before the join: other sample
        types and further aliquots of TCGA barcodes.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import load_cohort, simulate_cohort
    >>> paths = simulate_cohort(mkdtemp(), n_patients=4, n_patches=20, random_state=0)
    >>> report = load_cohort(*paths, label="subtype").report
    >>> report.slides["status"].to_list()
    ['used', 'used', 'used', 'used']
    >>> report.left_out.empty
    True
    """

    slides: pd.DataFrame
    unmatched_omics: list[str]
    omics_left_out: pd.DataFrame
    _bags: BagSequence = field(repr=False, compare=False)

    @property
    def left_out(self) -> pd.DataFrame:
        """The slides that are not in use."""
        return self.slides[self.slides["status"] != "used"]

    def check_geometry(self) -> pd.DataFrame:
        """Compare patch size and stride of the slides in use.

        The first call reads the coordinates of the slides; afterwards the printed report includes
        a summary with the slides whose stride differs from their patch size.

        Returns
        -------
        DataFrame
            As of :func:`sk_momkd.check_geometry`.
        """
        return self._geometry

    @cached_property
    def _geometry(self) -> pd.DataFrame:
        return check_geometry(self._bags)

    def by_site(self) -> pd.DataFrame:
        """Slides in use per site and label; for cohorts read with ``site=`` or barcodes.

        A site that is missing in the table counts as "unknown".

        Returns
        -------
        DataFrame
            Numbers of slides, sites x labels.

        Raises
        ------
        CohortError
            If the cohort was read without a site column.
        """
        if "site" not in self.slides:
            raise CohortError("The cohort was read without sites; name their column, site=.")
        used = self.slides[self.slides["status"] == "used"]
        return pd.crosstab(used["site"].fillna("unknown"), used["label"])

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
        for status, rows in self.omics_left_out.groupby("status"):
            lines.append(f"{len(rows)} omics rows left out, {status}: {first_few(rows['id'])}")
        by_name = used[used["matched_by"] == WITHOUT_UUID]
        if len(by_name):
            lines.append(f"{len(by_name)} by name without UUID: {first_few(by_name['slide_id'])}")
        for status, rows in self.left_out.groupby("status"):
            lines.append(f"{len(rows)} left out, {status}: {first_few(rows['slide_id'])}")
        lines += self._site_lines() if "site" in self.slides else []
        lines += geometry_lines(self._geometry) if "_geometry" in self.__dict__ else []
        return "\n".join(lines)

    def _site_lines(self) -> list[str]:
        counts = self.by_site()
        largest = counts.sum(axis=1).nlargest(_MOST_SITES).index
        shown = counts[counts.index.isin(largest)]
        lines = ["slides per site and label:", shown.to_string()]
        if len(shown) < len(counts):
            lines.append(f"and {len(counts) - len(shown)} smaller sites, see report.by_site()")
        return lines
