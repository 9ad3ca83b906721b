"""What a benchmark found, as a line of the table."""

import attrs


@attrs.frozen(kw_only=True)
class Figure:
    """One measured figure.

    Attributes:
        name: what was measured.
        target: what it is to be.
        measured: what it is.
        peer: what it is measured against, in the same run.
        passed: whether the target is reached.
    """

    name: str
    target: str
    measured: str
    peer: str
    passed: bool

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "falls short"
        return f"{self.name:36} {self.measured:34} peer: {self.peer:22} target: {self.target:44} {verdict}"
