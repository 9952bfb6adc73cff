"""Which of two classes is the positive one, and whether their names mean the other one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from ..messages import warn

_POSITIVE = (
    "+ pos positive high hi yes true present with mut mutant mutated mutation altered amplified "
    "amplification methylated deficient dmmr msi msih case event responder response recurrence "
    "relapse progression metastasis metastatic malignant cancer tumor tumour disease diseased "
    "dead deceased ja oui si s\u00ed s\u00ec sim wahr vrai vero verdadero verdadeiro positiv "
    "positif positivo mutiert hoch erh\u00f6ht \u00e9lev\u00e9 alto"
)
_NEGATIVE = (
    "- neg negative low lo no not non none without nil false absent wt wild wildtype unaltered "
    "unamplified unmethylated proficient pmmr mss control nonresponder unresponsive normal "
    "healthy benign alive living nein nee n\u00e3o nao falsch faux falso negativ n\u00e9gatif "
    "negatif negativo wildtyp niedrig bas bajo"
)
# A single letter is a word only where the other label is its counterpart.
_LETTERS = frozenset({("p", "n"), ("h", "l"), ("y", "n"), ("t", "f")})
# Words of letters and digits, and a plus or minus that does not lead into the next word.
_DASHES = "\N{MINUS SIGN}\N{EN DASH}"
_WORD = re.compile(rf"[^\W_]+|[+\-{_DASHES}](?![^\W_])")


def positive_class(classes: Sequence[Any], pos_label: Any = None) -> Any:
    """Positive one of two classes: `pos_label`, or by default the class that sorts last.

    Every classifier, evaluation and test of this package asks here.

    Parameters
    ----------
    classes : sequence of at least two labels
        In sorted order.
    pos_label : label, optional

    Returns
    -------
    label or None
        An element of `classes`; None where there are more than two.

    Raises
    ------
    ValueError
        If `pos_label` is none of two classes; lists the classes.

    Warns
    -----
    UserWarning
        If `pos_label` is None and the names of the classes suggest that the one that sorts first
        is the positive one, as in "HER2+" and "HER2-".

    Examples
    --------
    >>> positive_class([0, 1])
    1
    >>> positive_class(["HER2+", "HER2-"], "HER2+")
    'HER2+'
    """
    classes = list(classes)
    if len(classes) > 2:
        if pos_label is not None:
            raise ValueError(
                f"pos_label={pos_label!r} is for two classes, but there are {len(classes)}: "
                f"{_listed(classes)}. Leave pos_label out, or join classes until two are left."
            )
        return None
    if pos_label is None:
        if means_the_first(*classes):
            first, last = classes
            warn(
                f"The classes are {first!r} and {last!r}. Without pos_label, {last!r} is the "
                f"positive class because it sorts last. If {first!r} is meant, pass "
                f"pos_label={first!r}; pos_label={last!r} keeps this choice without a warning.",
                UserWarning,
            )
        return classes[1]
    if pos_label not in classes:
        raise ValueError(
            f"pos_label={pos_label!r} is no class of y. The classes are {_listed(classes)}."
        )
    return classes[classes.index(pos_label)]


def _listed(classes: Iterable[Any]) -> str:
    return ", ".join(map(repr, classes))


def means_the_first(first: Any, last: Any) -> bool:
    """Whether the names suggest that the first of two classes is the positive one.

    Examples
    --------
    >>> means_the_first("HER2+", "HER2-"), means_the_first("high", "low")
    (True, True)
    >>> means_the_first("negative", "positive"), means_the_first("LUAD", "LUSC")
    (False, False)
    """
    if not (isinstance(first, str) and isinstance(last, str)):
        return False
    pair = first.casefold(), last.casefold()
    own, other = _own_words(*pair)
    if (*own, *other) in _LETTERS or _sense(own) > _sense(other):
        return True
    # "her2high" and "her2low" differ in "high" and "low".
    shared = len(list(takewhile(lambda two: two[0] == two[1], zip(*pair, strict=False))))
    own, other = _own_words(pair[0][shared:], pair[1][shared:])
    return _sense(own) > _sense(other)


def _own_words(first: str, last: str) -> tuple[Counter[str], Counter[str]]:
    """Words of each label that the other lacks."""
    one, two = (Counter(_WORD.findall(text)) for text in (first, last))
    return one - two, two - one


def _sense(words: Iterable[str]) -> int:
    """1 for words that mean positive, -1 for words that mean negative or negate, else 0."""
    plain = {"-" if word in _DASHES else word for word in words}
    if plain & set(_NEGATIVE.split()):
        return -1
    return 1 if plain & set(_POSITIVE.split()) else 0
