"""Who may do what: one function an action. A route asks one of them and nothing else.

rater        rates what is assigned, sees and changes own votes
adjudicator  also sees disagreements and decides them
lead         also sees all votes, writes guidelines, invites, exports
admin        also changes roles
"""

from dataclasses import dataclass
from typing import Literal

from fairlead.web.errors import Refused

Role = Literal["rater", "adjudicator", "lead", "admin"]
ROLES: tuple[Role, ...] = ("rater", "adjudicator", "lead", "admin")
Scope = Literal["read", "rate", "adjudicate", "lead"]
SCOPES: dict[Scope, Role] = {"read": "rater", "rate": "rater", "adjudicate": "adjudicator", "lead": "lead"}
"""Of tokens, and the least role that may make one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The person who asks."""

    person_id: str
    name: str
    role: Role


def _at_least(actor: Actor, role: Role, what: str) -> None:
    if ROLES.index(actor.role) < ROLES.index(role):
        article = "an" if role.startswith("a") else "a"
        raise Refused(403, "forbidden", f"Only {article} {role} may {what}. Ask the lead of the project.")


def may_rate(actor: Actor) -> None:
    """Get items and vote on them; everybody who is logged in."""
    _at_least(actor, "rater", "rate")


def may_read_guideline(actor: Actor) -> None:
    """Read what raters are asked."""
    _at_least(actor, "rater", "read the guideline")


def may_see_own_votes(actor: Actor) -> None:
    """Look at own earlier votes and own figures."""
    _at_least(actor, "rater", "see votes")


def may_see_votes(actor: Actor) -> None:
    """Look at the votes of all raters, their agreement and their comments."""
    _at_least(actor, "lead", "see the votes of others")


def may_edit_guideline(actor: Actor) -> None:
    """Publish the next version of a guideline."""
    _at_least(actor, "lead", "change the guideline")


def may_change_project(actor: Actor) -> None:
    """Pause and resume, votes an item, calibration."""
    _at_least(actor, "lead", "change the project")


def may_adjudicate(actor: Actor) -> None:
    """Look at disagreements, nobody named, and decide them."""
    _at_least(actor, "adjudicator", "decide disagreements")


def may_discuss(actor: Actor) -> None:
    """Read the discussion of a calibration round; the page asks as well whether it is open, and whether the reader has rated the round."""
    _at_least(actor, "rater", "read the discussion")


def may_export(actor: Actor) -> None:
    """Take the votes out."""
    _at_least(actor, "lead", "export votes")


def may_invite(actor: Actor, role: str) -> None:
    """Make an invite link; a lead for raters and adjudicators, an admin for everybody."""
    _at_least(actor, "lead", "invite people")
    if role not in ROLES:
        raise Refused(422, "invalid", f"{role} is not a role. Choose one of {', '.join(ROLES)}.")
    if ROLES.index(role) >= ROLES.index("lead"):
        _at_least(actor, "admin", f"invite a {role}")


def may_disable(actor: Actor, *, person_id: str, role: str) -> None:
    """Keep a person from logging in; never oneself, and a lead never a lead."""
    _at_least(actor, "lead", "disable people")
    if person_id == actor.person_id:
        raise Refused(422, "invalid", "You cannot disable yourself. Ask another lead.")
    if role in ("lead", "admin"):
        _at_least(actor, "admin", f"disable a {role}")


def may_set_abilities(actor: Actor) -> None:
    """Write down languages and skills of people."""
    _at_least(actor, "lead", "write down what people can rate")


def may_create_project(actor: Actor) -> None:
    """Make a project."""
    _at_least(actor, "lead", "make projects")


def may_import(actor: Actor) -> None:
    """Put texts into a project."""
    _at_least(actor, "lead", "import texts")


def may_make_token(actor: Actor, scope: str) -> None:
    """Let a program act for oneself; never beyond the own role."""
    _at_least(actor, "rater", "make tokens")
    if scope not in SCOPES:
        raise Refused(422, "invalid", f"{scope} is no scope. Choose one of {', '.join(SCOPES)}.")
    _at_least(actor, SCOPES[scope], "make a token of this scope")


def scopes_of(role: Role) -> tuple[Scope, ...]:
    """Scopes of the tokens that somebody may make."""
    return tuple(scope for scope, least in SCOPES.items() if ROLES.index(role) >= ROLES.index(least))


def may_see_audit(actor: Actor) -> None:
    """Look at what everybody did."""
    _at_least(actor, "admin", "see the log")


def may_use_webhooks(actor: Actor) -> None:
    """Let a server be told what happens in a project."""
    _at_least(actor, "lead", "use webhooks")


def may_erase(actor: Actor, *, person_id: str) -> None:
    """Erase a person for good; never oneself."""
    _at_least(actor, "admin", "erase people")
    if person_id == actor.person_id:
        raise Refused(422, "invalid", "You cannot erase yourself. Ask another admin, or use the command line.")
