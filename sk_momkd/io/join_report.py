"""Report on the join of a cohort: tables, and a summary to print."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from ..data.sequence import BagSequence
from ..exceptions import CohortError, CohortWarning
from ..messages import first_few, warn
from .file_headers import FilesReport, headers_of
from .geometry import check_geometry, geometry_lines
from .slide_files import WITHOUT_UUID

_MOST_LEFT_OUT = 10  # in a notebook
_MOST_SITES = 12  # in the printed report; a TCGA cohort has forty


_FROZEN = re.compile(r"TCGA-.{2}-.{4}-\d{2}[A-Z]-\d{2}-(TS|BS|MS)", re.IGNORECASE)
_DIAGNOSTIC = re.compile(r"TCGA-.{2}-.{4}-\d{2}[A-Z]-\d{2}-DX", re.IGNORECASE)


@dataclass(frozen=True)
class JoinReport:
    """How slides, feature files and omics were joined, and what was left out.

    Attributes
    ----------
    slides : DataFrame
        One row per slide that occurs in the table or in the folder, with ``patient_id``,
        ``label`` and ``label_in_table`` (if a label was asked for), ``has_omics``, ``matched_by``
        (how its file was found) and ``status`` (``"used"`` or why not); with TCGA barcodes also
        ``site`` and ``sample_type``.
    unmatched_omics : list of str
        Omics rows that belong to no slide in use.
    omics_left_out : DataFrame
        ``id`` and ``status`` of omics rows that were left out before the join: other sample
        types and further aliquots of TCGA barcodes.
    changed_ids : DataFrame
        Ids that are written otherwise in the table or in omics: ``column``, ``given`` and ``id``,
        the form in which they are compared.

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
    changed_ids: pd.DataFrame
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

    @cached_property
    def _files(self) -> FilesReport:
        return headers_of(self._bags)

    def require_readable(self) -> None:
        """Raise if the header of a file cannot be read, before hours of work end with it.

        Raises
        ------
        CohortError
            Naming the slides, and the reason of the first.
        """
        if self._files.unreadable:
            raise CohortError(
                f"{self._files.lines()[0]} Extract or copy them again, or take these slides out of "
                "the table."
            )

    def warn_of_files(self) -> None:
        """Warn of slides whose files cannot be read, or state different things."""
        for line in self._files.lines():
            warn(f"{line} The join report names them.", CohortWarning)

    def by_site(self) -> pd.DataFrame:
        """Slides in use per site and label; for cohorts read with ``site=`` or barcodes.

        Without labels, all slides are in one column. A site that is missing in the table counts as
        "unknown".

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
        labels = used["label"] if "label" in used else pd.Series("all", used.index, name="label")
        return pd.crosstab(used["site"].fillna("unknown"), labels)

    def different_labels(self) -> str:
        """Name patients whose slides in use have different labels.

        Returns
        -------
        str
            A sentence; empty without any.
        """
        used = self.slides[self.slides["status"] == "used"]
        if "label" not in used:
            return ""
        counts = used.groupby("patient_id")["label"].nunique()
        several = counts.index[counts > 1]
        if not len(several):
            return ""
        return (
            f"{len(several)} patients have slides with different labels ({first_few(several)}). In "
            "an evaluation a patient has the label of most of its slides, of two classes with as "
            "many the negative one. If the labels are those of patients, correct the table."
        )

    def label_text(self, label: Any) -> str:
        """A label, with what it was in the table where that is something else.

        Parameters
        ----------
        label : label

        Returns
        -------
        str
        """
        if "label_in_table" not in self.slides:
            return str(label)
        rows = self.slides[(self.slides["status"] == "used") & (self.slides["label"] == label)]
        texts = dict.fromkeys(map(str, rows["label_in_table"]))
        coded = list(texts) != [str(label)]
        return f"{label} ({' or '.join(map(repr, texts))})" if coded else str(label)

    def __str__(self) -> str:
        used = self.slides[self.slides["status"] == "used"]
        labels = "no labels"
        if "label" in used:
            counts = used["label"].value_counts().items()
            labels = "labels {" + ", ".join(f"{self.label_text(k)}: {n}" for k, n in counts) + "}"
        lines = [
            f"{len(used)} of {len(self.slides)} slides in use, "
            f"{used['patient_id'].nunique()} patients, {labels}",
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
        lines += [said] if (said := self.different_labels()) else []
        lines += self._id_lines() + _preparation_lines(used["slide_id"])
        lines += self._files.lines() if "_files" in self.__dict__ else []
        lines += self._site_lines() if "site" in self.slides else []
        lines += geometry_lines(self._geometry) if "_geometry" in self.__dict__ else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The printed report, and the first slides that were left out, for notebooks."""
        said = f"<pre>{html.escape(str(self))}</pre>"
        left_out = self.left_out.head(_MOST_LEFT_OUT)
        return said + (left_out.to_html(index=False, na_rep="") if len(left_out) else "")

    def _id_lines(self) -> list[str]:
        lines = []
        for column, rows in self.changed_ids.groupby("column", sort=False):
            pairs = zip(rows["given"], rows["id"], strict=True)
            shown = first_few([f"{given!r} -> {name!r}" for given, name in pairs]).replace('"', "")
            lines.append(f"{len(rows)} ids of {column} are written otherwise: {shown}")
        return lines

    def _site_lines(self) -> list[str]:
        counts = self.by_site()
        largest = counts.sum(axis=1).nlargest(_MOST_SITES).index
        shown = counts[counts.index.isin(largest)]
        lines = ["slides per site and label:", shown.to_string()]
        if len(shown) < len(counts):
            lines.append(f"and {len(counts) - len(shown)} smaller sites, see report.by_site()")
        return lines


def _preparation_lines(slides: pd.Series) -> list[str]:
    """A line if frozen sections and diagnostic slides of TCGA are mixed."""
    frozen = slides[slides.map(lambda name: bool(_FROZEN.match(name)))]
    diagnostic = slides[slides.map(lambda name: bool(_DIAGNOSTIC.match(name)))]
    if not len(frozen) or not len(diagnostic):
        return []
    return [
        f"{len(diagnostic)} diagnostic slides (DX) and {len(frozen)} frozen sections (TS, MS, BS), "
        f"which look different: {first_few(diagnostic, 1)} and {first_few(frozen, 1)}"
    ]
