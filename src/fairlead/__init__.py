"""Fairlead: a language model from raters to release, with gates between the stages."""

__version__ = "0.1.0"
