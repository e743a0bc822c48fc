"""Refusals that a person meets: a status for browsers, a sentence, and a short word for programs."""

from fairlead.core.errors import FairleadError


class Refused(FairleadError, ValueError):
    """A request that is not done. `message` is shown to the person as it is."""

    exit_code = 2

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def __reduce__(self) -> tuple[type["Refused"], tuple[int, str, str]]:
        return type(self), (self.status, self.code, self.message)


def missing(what: str) -> Refused:
    """Not there, or not for this person: the answer is the same."""
    return Refused(404, "missing", f"{what} is not there, or not yours. Go back and choose another.")


def invalid(message: str) -> Refused:
    """The request itself is wrong."""
    return Refused(422, "invalid", message)


class NotYet(Refused):
    """Figures of a large project that are being made from all of its votes for the first time; pages show what is known meanwhile."""

    def __init__(self, project_id: str) -> None:
        super().__init__(
            503,
            "not_yet",
            "These figures are made for the first time, from all votes. Load the page again in a minute.",
        )
        self.project_id = project_id

    def __reduce__(self) -> tuple[type["NotYet"], tuple[str]]:  # pyright: ignore[reportIncompatibleMethodOverride] - its own arguments
        return type(self), (self.project_id,)
