"""What licences ask of something made from parts: the terms that every part carries on into the whole.

In: SPDX ids in lower case (`unknown` where none is stated; several on one part joined by ` and `). Out: `Terms`. A
merged dataset may be used for what all of its parts allow: one non-commercial part makes the whole non-commercial, a
share-alike part asks that the whole be shared alike, and two different share-alike licences cannot both be obeyed.
What no part states cannot be known of the whole. This is a reading of ids, no legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from potstill.rows import UNKNOWN_LICENCE

_COPYLEFT = re.compile(r"^(a?gpl|lgpl|gfdl|odbl|eupl|mpl|epl|osl|cdla-sharing|cc-by(-nc)?-sa|cecill|ofl)")
_NON_COMMERCIAL = re.compile(r"(^|-)nc(-|$)|non-?commercial|research-only|academic")
_NO_DERIVATIVES = re.compile(r"(^|-)nd(-|$)|no-?deriv")


@dataclass(frozen=True)
class Terms:
    """Terms of the whole.

    Attributes:
        licences: Licences of the parts, sorted.
        non_commercial: Those that forbid commercial use.
        no_derivatives: Those that forbid changed copies.
        share_alike: Those that ask for the same licence on the whole.
        unknown: Whether a part states no licence.
    """

    licences: tuple[str, ...]
    non_commercial: tuple[str, ...] = ()
    no_derivatives: tuple[str, ...] = ()
    share_alike: tuple[str, ...] = ()
    unknown: bool = False

    @property
    def conflict(self) -> str:
        """Why the parts cannot lawfully be one work, as their ids say; empty where they can."""
        families = sorted({_family(licence) for licence in self.share_alike})
        if len(families) > 1:
            return f"{' and '.join(families)} each ask that the whole be under their own licence"
        if self.share_alike and self.non_commercial and not any("-nc-" in licence for licence in self.share_alike):
            return f"{self.share_alike[0]} allows commercial use of the whole, {self.non_commercial[0]} does not"
        if self.no_derivatives and len(self.licences) > 1:
            return f"{self.no_derivatives[0]} forbids that it is mixed with anything"
        return ""

    @property
    def sentence(self) -> str:
        """The terms for people, in one or two sentences; empty where there are none to tell."""
        parts = []
        if self.non_commercial:
            parts.append(f"non-commercial use only ({', '.join(self.non_commercial)})")
        if self.share_alike:
            parts.append(f"to be shared alike ({', '.join(self.share_alike)})")
        if self.no_derivatives:
            parts.append(f"no changed copies ({', '.join(self.no_derivatives)})")
        told = f"As a whole: {'; '.join(parts)}." if parts else ""
        return f"{told} Its parts conflict: {self.conflict}." if self.conflict else told

    def to_json(self) -> dict[str, object]:
        """JSON types, for reports."""
        return {
            "licences": list(self.licences),
            "non_commercial": list(self.non_commercial),
            "no_derivatives": list(self.no_derivatives),
            "share_alike": list(self.share_alike),
            "unknown": self.unknown,
            "conflict": self.conflict,
        }


def merged_terms(licences: Iterable[str]) -> Terms:
    """Terms of what is made from parts under these licences.

    Examples:
        >>> merged_terms(["mit", "cc-by-nc-4.0"]).sentence
        'As a whole: non-commercial use only (cc-by-nc-4.0).'
        >>> merged_terms(["cc-by-sa-4.0", "gpl-3.0"]).conflict
        'cc-by-sa and gpl each ask that the whole be under their own licence'
    """
    found = tuple(
        sorted({part.strip().lower() or UNKNOWN_LICENCE for licence in licences for part in licence.split(" and ")})
    )
    return Terms(
        licences=found,
        non_commercial=tuple(part for part in found if _NON_COMMERCIAL.search(part)),
        no_derivatives=tuple(part for part in found if _NO_DERIVATIVES.search(part)),
        share_alike=tuple(part for part in found if _COPYLEFT.match(part)),
        unknown=UNKNOWN_LICENCE in found,
    )


def _family(licence: str) -> str:
    """A share-alike licence without its version: later versions of one licence take in earlier ones."""
    return re.sub(r"-?v?\d+(\.\d+)*(-only|-or-later)?$", "", licence)
