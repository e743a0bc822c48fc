"""The REST API under /api/v1: what the pages do, for programs. A route parses, asks `policy`, calls one function.

It knows a caller by a token only (`Authorization: Bearer fairlead_...`), never by a cookie, so no page can be tricked into using it.
"""

from fairlead.web.api.app import make_api

__all__ = ["make_api"]
