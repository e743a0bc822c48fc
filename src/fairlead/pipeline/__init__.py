"""From a recipe to artifacts: the plan, the cache, the run, and the one place that wires Protocols to classes."""
