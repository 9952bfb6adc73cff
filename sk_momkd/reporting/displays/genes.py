"""Bar chart of the genes with the largest attributions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd

from ... import inspection
from .style import axes, colour, literal, styled

_DIRECTION = "direction_"


@dataclass
class GeneAttributionDisplay:
    """Mean absolute attributions of genes, coloured by the class that high expression favours.

    Parameters
    ----------
    genes : DataFrame
        ``genes`` of the result of :func:`sk_momkd.gene_attributions` with ``by="class"``.
    n_genes : int, default=20
        Number of genes that are drawn, the most important first.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure and Axes

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_momkd.reporting.displays.genes import GeneAttributionDisplay
    >>> genes = pd.DataFrame(
    ...     {
    ...         "gene": ["ERBB2", "ESR1"],
    ...         "mean_abs": [0.4, 0.2],
    ...         "direction_neg": [-0.9, 0.8],
    ...         "direction_pos": [0.9, -0.8],
    ...     }
    ... )
    >>> display = GeneAttributionDisplay(genes).plot()
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['ERBB2', 'ESR1']
    """

    genes: pd.DataFrame
    n_genes: int = 20
    figure_: Any = field(init=False, default=None, repr=False)
    ax_: Any = field(init=False, default=None, repr=False)

    @classmethod
    def from_estimator(
        cls,
        clf: Any,
        omics: Any,
        *,
        n_genes: int = 20,
        random_state: Any = None,
        ax: Any = None,
    ) -> Self:
        """Compute the gene attributions of a fitted MoMKD and draw them.

        Parameters
        ----------
        clf : fitted MoMKDClassifier, or pipeline that ends in one
        omics : AnnData, DataFrame or OmicsTable
        n_genes : int, default=20
            Number of genes that are drawn, the most important first.
        random_state : int, RandomState or None, default=None
            Controls the attributions.
        ax : matplotlib Axes, optional

        Returns
        -------
        GeneAttributionDisplay

        Raises
        ------
        OmicsError, ImportError, TypeError
            As :func:`sk_momkd.gene_attributions` raises them.
        """
        found = inspection.gene_attributions(clf, omics, random_state=random_state)
        return cls(found.genes, n_genes).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        shown = self.genes.head(self.n_genes)
        classes = [c for c in shown.columns if str(c).startswith(_DIRECTION)]
        if not classes:
            raise ValueError(
                f"genes has no column {_DIRECTION}<class>; it has {', '.join(shown.columns)}. Pass "
                "the table of gene_attributions(..., by='class')."
            )
        toward = shown[classes].fillna(0).to_numpy().argmax(axis=1)
        with styled():
            self.ax_ = axes(ax, (5.6, 0.22 * len(shown) + 1.5))[0]
            self.figure_ = self.ax_.figure
            for k, name in enumerate(classes):
                of_class = toward == k
                if of_class.any():
                    self.ax_.barh(
                        np.flatnonzero(of_class),
                        shown["mean_abs"].to_numpy()[of_class],
                        color=colour(k),
                        label=literal(str(name).removeprefix(_DIRECTION)),
                        height=0.75,
                    )
            self.ax_.set_yticks(range(len(shown)), shown["gene"].map(literal), fontsize=8)
            self.ax_.set(xlabel="mean absolute attribution", ylim=(len(shown) - 0.4, -0.6))
            place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(classes)}
            self.ax_.legend(title="high expression favours", **place)
        return self
