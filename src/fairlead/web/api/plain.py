"""What a page shows, as plain JSON: dataclasses by the names of their fields, so that a figure on a page and in the API is the same."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fairlead.report.charts import Chart
from fairlead.store.annotation.schema import Table


def plain(value: Any) -> Any:
    """The value as JSON holds it: nan and inf become null, charts (drawn from the same figures) are left out.

    Raises:
        TypeError: it holds something that is no figure; rows of the database are never given out whole.
    """
    if isinstance(value, Table):
        raise TypeError(f"a row of {value.__tablename__} is no figure")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: plain(inner) for name, inner in fields.items() if not isinstance(inner, Chart)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    raise TypeError(f"{type(value).__name__} is no figure")
