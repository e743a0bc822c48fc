"""The catalogue of metrics (unit, meaning, healthy range) and where they are written."""
