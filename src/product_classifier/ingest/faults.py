"""What is wrong with a catalogue: faults stop the import, warnings are counted in the report."""

from collections.abc import Iterator
from dataclasses import dataclass, field

SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Offender:
    """One place where a rule is broken. `row` is the file's line; the header is line 1."""

    file: str
    row: int | None
    column: str
    value: str

    def __str__(self) -> str:
        line = f", line {self.row}" if self.row is not None else ""
        column = f", column {self.column}" if self.column else ""
        return f"{self.file}{line}{column}: {self.value}"


@dataclass
class Finding:
    """A broken rule, how often it is broken, and the first places."""

    check: str
    message: str
    count: int = 0
    offenders: list[Offender] = field(default_factory=list)


class Findings:
    """Collects what the checks find, so that one run names every kind of fault."""

    def __init__(self, max_offenders: int) -> None:
        """Keeps at most `max_offenders` places per rule; all are counted."""
        self._max_offenders = max_offenders
        self._faults: dict[str, Finding] = {}
        self._warnings: dict[str, Finding] = {}

    @property
    def faults(self) -> list[Finding]:
        """What stops the import."""
        return list(self._faults.values())

    @property
    def warnings(self) -> list[Finding]:
        """What is only counted."""
        return list(self._warnings.values())

    def fault(
        self, check: str, message: str, offender: Offender | None = None, count: int = 1
    ) -> None:
        """Notes a broken rule. Findings of one check are one entry; the first message stays."""
        self._add(self._faults, check, message, offender, count)

    def warn(
        self, check: str, message: str, offender: Offender | None = None, count: int = 1
    ) -> None:
        """Notes what a reader of the report should know."""
        self._add(self._warnings, check, message, offender, count)

    def turn_into_fault(self, check: str, message: str) -> None:
        """Makes a warning that passed its threshold a fault."""
        if (finding := self._warnings.pop(check, None)) is not None:
            finding.message = message
            self._faults[check] = finding

    def _add(
        self,
        entries: dict[str, Finding],
        check: str,
        message: str,
        offender: Offender | None,
        count: int,
    ) -> None:
        finding = entries.setdefault(check, Finding(check, message))
        finding.count += count
        if offender is not None and len(finding.offenders) < self._max_offenders:
            finding.offenders.append(offender)

    def describe(self) -> Iterator[str]:
        """Gives one line per fault and one per offender shown."""
        for finding in self.faults:
            yield (
                f"{finding.message} ({finding.count} found)"
                if finding.count > 1
                else finding.message
            )
            for offender in finding.offenders:
                yield f"  {offender}"
            if (more := finding.count - len(finding.offenders)) > 0 and finding.offenders:
                yield f"  ... and {more} more"


def shown(value: str) -> str:
    """Shortens a value for a message; quotes show blanks and empty text."""
    return repr(value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…")
