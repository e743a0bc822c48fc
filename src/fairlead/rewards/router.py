"""Which components of a composed reward score which prompts: by slice, by meta, or as the prompt itself says.

A prompt whose meta names `rewards` (a list of components) is scored by exactly these; else every component whose `slices`,
`except_slices` and `where` fit scores it. So a mix of chat prompts with a reward model and of problems with a verifier is one run.

Example:
    router = Router(section.components)
    router.applies(prompts)["math"]        # [B] bool
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import DataError, explain, nearest
from fairlead.core.records import Prompt
from fairlead.core.reward_section import Component
from fairlead.core.summary import Table

Bools = npt.NDArray[np.bool_]
META_KEY = "rewards"
"""Key of a prompt's meta that names its components."""


class Router:
    """Decides by prompt; holds the components only."""

    def __init__(self, components: Mapping[str, Component]) -> None:
        self.components = dict(components)

    def applies(self, prompts: Sequence[Prompt]) -> dict[str, Bools]:
        """[B] by component: does it score the completion of this prompt?

        Raises:
            DataError: a prompt names a component that the recipe does not have.
        """
        names = [self.names(prompt) for prompt in prompts]
        return {
            component: np.array([component in found for found in names], dtype=bool) for component in self.components
        }

    def names(self, prompt: Prompt) -> frozenset[str]:
        """Components that score a prompt's completions."""
        given = prompt.meta.get(META_KEY)
        if given is None:
            return frozenset(name for name, component in self.components.items() if _fits(component, prompt))
        named = [given] if isinstance(given, str) else list(given) if isinstance(given, (list, tuple)) else [given]
        for name in named:
            if name not in self.components:
                wrong = f"is not a component{nearest(str(name), self.components)}"
                raise DataError(explain(f"prompt {prompt.id}: meta.{META_KEY}", name, wrong, expected="names among " + ", ".join(self.components),
                                        remedy="Correct the prompt or add the component"))  # fmt: skip
        return frozenset(named)

    def check(self, prompts: Sequence[Prompt], *, where: str = "rewards") -> Table:
        """How many prompts each component scores, before anything is sampled.

        Args:
            where: recipe path of the section.
        Raises:
            DataError: no component with a weight scores a prompt, a component scores none, or it names a slice that no prompt is of: a slip
                in a name.
        """
        for name, component in self.components.items():
            _check_slices(component, {prompt.slice for prompt in prompts}, where=f"{where}.components.{name}")
        weighing = {name for name, component in self.components.items() if component.weight}
        found = [(prompt, self.names(prompt)) for prompt in prompts]
        counts = {name: sum(name in names for _, names in found) for name in self.components}
        bare = [prompt for prompt, names in found if not names & weighing]
        if bare:
            wrong = (
                f"is scored by no component of {where} "
                f"({len(bare):,} of {len(prompts):,} prompts; its slice is {bare[0].slice})"
            )
            raise DataError(explain(f"prompt {bare[0].id}", None, wrong, expected="one with a weight for every prompt",
                                    remedy="Correct slices, except_slices and where, or leave these prompts out"))  # fmt: skip
        for name, count in counts.items():
            if not count:
                slices = sorted({prompt.slice for prompt in prompts})
                raise DataError(explain(f"{where}.components.{name}", None, f"scores none of the {len(prompts):,} prompts",
                                        expected="conditions that some prompt meets; slices are " + ", ".join(slices[:10]),
                                        remedy="Correct its slices, except_slices and where"))  # fmt: skip
        rows = tuple((name, self.components[name].type, self.components[name].weight, count, count / len(prompts))
                     for name, count in counts.items())  # fmt: skip
        return Table(
            title="Components of the reward", columns=("component", "type", "weight", "prompts", "share"), rows=rows
        )


def _check_slices(component: Component, there: AbstractSet[str], *, where: str) -> None:
    """Refuse a slice without prompts."""
    for key in ("slices", "except_slices"):
        for name in getattr(component, key):
            if name not in there:
                raise DataError(explain(f"{where}.{key}", name, f"is a slice without prompts{nearest(name, there)}",
                                        expected="slices of the training prompts, which are " + ", ".join(sorted(there)[:10]),
                                        remedy="Correct it, remove it, or add prompts of this slice"))  # fmt: skip


def _fits(component: Component, prompt: Prompt) -> bool:
    if (component.slices and prompt.slice not in component.slices) or prompt.slice in component.except_slices:
        return False
    for key, wanted in component.where.items():
        allowed = wanted if isinstance(wanted, tuple) else (wanted,)
        value = prompt.meta.get(key)
        # of the same type, for True == 1 in Python
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            return False
    return True
