"""Training methods as pure functions on tensors: one idea a file, one registry, one suite of property checks."""
