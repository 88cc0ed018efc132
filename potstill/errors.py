"""Every error that potstill raises on purpose.

A message says what happened, the value that was met, and the mend.

    PotstillError
    ├── UserError               the user can mend it: the CLI prints the message alone, exit code 2
    │   ├── TaskError           a task file or prompt that cannot be read (lists every fault)
    │   ├── OptionError         an unknown or impossible option (lists every fault)
    │   ├── MissingExtra        an optional library is not installed (names the install command)
    │   └── DataError           a data file, card or index that cannot be read
    ├── TeacherError            the teacher could not answer: exit code 3
    │   ├── TeacherRefused      400, 401, 403, 404: asking again cannot help
    │   ├── TeacherUnavailable  down, throttled or timing out after bounded retries
    │   └── BudgetReached       the cap on cost, tokens or time was met; the run can go on later
    ├── RunError                the run folder: exit code 4
    │   ├── RunLocked           another process works on this run
    │   ├── LedgerError         the ledger cannot be written: no dataset, row or reply is to blame
    │   └── ManifestError       an artefact does not match its manifest
    ├── TrainingError           training could not start or stay finite: exit code 5
    └── HubError                the Hub refused or could not be reached: exit code 6
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from potstill.extras import install_command


class PotstillError(Exception):
    """Root of the tree. `exit_code` is what the command line returns."""

    exit_code = 1


class UserError(PotstillError):
    """Something that the user can mend."""

    exit_code = 2


class OptionFault(str):
    """One fault in words, and the option that it is about.

    Attributes:
        place: Such as `("generation", "novelty")`, outermost first; empty where it is about no option.
    """

    place: tuple[str, ...]

    def __new__(cls, text: str, *place: str) -> Self:
        made = super().__new__(cls, text)
        made.place = place
        return made


class BadOptions(ValueError):
    """What options find wrong with their own values; `potstill.options.build_options` makes an `OptionError` of it."""

    def __init__(self, faults: Sequence[OptionFault]):
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


class _Faults(UserError):
    """An error that gathers every fault before it is raised."""

    def __init__(self, where: str, faults: Sequence[str]):
        self.where = where
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__("\n".join([f"{where}: {count}", *(f"  - {fault}" for fault in self.faults)]))


class TaskError(_Faults):
    """A task that cannot be read. `faults` holds one line for each fault."""


class OptionError(_Faults):
    """Options that cannot be used. `faults` holds a line for each, an `OptionFault` where it is about one option."""


class MissingExtra(UserError):
    """An optional library is missing."""

    def __init__(self, library: str, extra: str, why: str):
        self.library, self.extra = library, extra
        super().__init__(f"{why} needs {library}, which is not installed; run: {install_command(extra)}")


class DataError(UserError):
    """A data file, card or index that cannot be read."""


class UnreachableError(DataError):
    """Data on the Hub, to which there is no way at the moment."""


class TeacherError(PotstillError):
    """The teacher could not answer."""

    exit_code = 3


class TeacherRefused(TeacherError):
    """The endpoint refused the request itself (400, 401, 403, 404, 422)."""


class TeacherUnavailable(TeacherError):
    """The endpoint is down, throttles or times out, after bounded retries."""


class BudgetReached(TeacherError):
    """The cap on cost, tokens or time was met.

    Attributes:
        or_train: Whether there may be rows to train on without more of the teacher (`--at-budget train`).
    """

    def __init__(self, message: str, *, or_train: bool = False):
        super().__init__(message)
        self.or_train = or_train


class RunError(PotstillError):
    """The run folder cannot be used."""

    exit_code = 4


class RunLocked(RunError):
    """Another process works on this run."""


class LedgerError(RunError):
    """The ledger cannot be written."""


class ManifestError(RunError):
    """An artefact does not match its manifest."""


class TrainingError(PotstillError):
    """Training could not start, or did not stay finite."""

    exit_code = 5


class HubError(PotstillError):
    """The Hub refused, or could not be reached."""

    exit_code = 6
