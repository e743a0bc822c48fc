"""How many prompts of each slice: the declared mix, as far as the data allows.

Example:
    slice_quotas({"code": 100, "chat": 900}, mix={"code": 0.5, "chat": 0.5}, total=None)    # {'code': 100, 'chat': 100}
    slice_quotas({"code": 100, "chat": 900}, mix={"code": 0.5, "chat": 0.5}, total=400)     # {'code': 100, 'chat': 300}
"""

from collections.abc import Mapping


def slice_quotas(available: Mapping[str, int], *, mix: Mapping[str, float], total: int | None) -> dict[str, int]:
    """Prompts to take from each declared slice.

    Without a total the shares are met exactly (over the slices that have prompts) and the scarcest slice sets the size. With
    a total, what a scarce slice lacks is spread over the others in proportion to their shares.

    Args:
        available: prompts by slice.
        mix: declared share by slice.
        total: prompts wanted, or None.
    """
    present = {name: share for name, share in mix.items() if available.get(name, 0) > 0}
    if not present:
        return {}
    if total is None:
        scale = min(available[name] / share for name, share in present.items())
        # the scarcest slice must not lose a prompt to rounding
        return {name: max(1, int(scale * share + 1e-9)) for name, share in present.items()}
    return _fill(available, present, min(total, sum(available[name] for name in present)))


def _fill(available: Mapping[str, int], shares: Mapping[str, float], total: int) -> dict[str, int]:
    quotas: dict[str, int] = {}
    rest = dict(shares)
    while rest:
        left = total - sum(quotas.values())
        scale = left / sum(rest.values())
        scarce = [name for name, share in rest.items() if available[name] <= share * scale]
        if not scarce:
            return quotas | _round({name: share * scale for name, share in rest.items()}, left)
        for name in scarce:
            quotas[name] = available[name]
            del rest[name]
    return quotas


def _round(wanted: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers with the given sum, by largest remainder (ties by name)."""
    result = {name: int(value) for name, value in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: (result[name] - wanted[name], name))
    for name in by_remainder[: total - sum(result.values())]:
        result[name] += 1
    return result
