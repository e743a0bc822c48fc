"""Configurations of other tools: read (`files`), understood (a table of names a tool), translated to recipe keys with an account.

`import_config.py` beside this folder writes the recipe. Adding a tool is a file with a `Tool` and a line here.
"""

from collections.abc import Mapping

from fairlead.cli.foreign.axolotl import AXOLOTL
from fairlead.cli.foreign.dschat import DSCHAT
from fairlead.cli.foreign.llamafactory import LLAMAFACTORY
from fairlead.cli.foreign.openrlhf import OPENRLHF
from fairlead.cli.foreign.tool import Tool
from fairlead.cli.foreign.trl import TRL

__all__ = ["TOOLS"]

TOOLS: Mapping[str, Tool] = {tool.name: tool for tool in (AXOLOTL, TRL, LLAMAFACTORY, DSCHAT, OPENRLHF)}
