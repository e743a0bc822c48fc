"""Environments that answer the turns of a policy: tools that it calls, and environments of your own.

engine/dialogues.py -- turns --> pooled.py -- jobs --> worker processes (rewards/pool.py) --> calculator.py, python.py, custom
"""

from fairlead.rewards.environments.pooled import PooledEnvironment, make_environment

__all__ = ["PooledEnvironment", "make_environment"]
