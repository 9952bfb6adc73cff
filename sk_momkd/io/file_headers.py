"""What the headers of the files of a cohort say, before any features are read."""

from __future__ import annotations

from typing import NamedTuple

from ..data.sequence import BagSequence
from ..data.stated import disagreements, stated_table
from ..exceptions import BagError
from ..messages import first_few


class FilesReport(NamedTuple):
    """Files that cannot be read, with the reason, and what the others disagree on."""

    unreadable: dict[str, str]
    mixed: list[str]

    def lines(self) -> list[str]:
        """A sentence for each problem."""
        lines = []
        if self.unreadable:
            name, reason = next(iter(self.unreadable.items()))
            lines.append(
                f"{len(self.unreadable)} files cannot be read ({first_few(self.unreadable)}); the "
                f"first, of {name}: {reason}"
            )
        lines += [f"Files state different things, {found}." for found in self.mixed]
        return lines


def headers_of(bags: BagSequence) -> FilesReport:
    """Read the header of each file of the slides."""
    unreadable = {}
    for bag in bags:
        try:
            bag.info  # noqa: B018
        except BagError as error:
            unreadable[bag.name] = str(error)
    return FilesReport(unreadable, disagreements(stated_table(bags)))
