"""The rules of a recipe's training stages, looked at before anything is computed: a misspelt rule must not be met hours later."""

from collections.abc import Iterator

from fairlead.core.config import Config
from fairlead.core.sections import TrainSection
from fairlead.policies.online_config import OnlineConfig
from fairlead.telemetry.rules import choose_rules


def check_alerts(recipe: Config) -> frozenset[str]:
    """Names under which a person may pass rules of this recipe on record, `alert.ID`.

    Raises:
        ConfigError: a rule, a metric or a limit that is not there, or an action on a KL coefficient that is not; located in the recipe.
    """
    chosen = [
        rule
        for path, section, kl_coef in _trainings(recipe, "")
        for rule in choose_rules(section.alerts.model_dump(), kl_coef=kl_coef, where=f"{path}.alerts")
    ]
    return frozenset(f"alert.{rule.id}" for rule in chosen)


def _trainings(section: Config, path: str) -> Iterator[tuple[str, TrainSection, float | None]]:
    """Every training section below a section, with its path in the recipe and the largest KL coefficient of its method, if it has one."""
    kl_coef = section.kl.largest if isinstance(section, OnlineConfig) else None
    for name in type(section).model_fields:
        value, here = getattr(section, name), f"{path}.{name}".lstrip(".")
        for key, item in value.items() if isinstance(value, dict) else ((None, value),):
            if isinstance(item, TrainSection):
                yield here, item, kl_coef
            elif isinstance(item, Config):
                yield from _trainings(item, here if key is None else f"{here}.{key}")
