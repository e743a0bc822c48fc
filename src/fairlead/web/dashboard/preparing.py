"""Figures of large projects, made when the server starts, so that the lead's first look does not wait for a reading of all votes."""

import threading

from fairlead.store.annotation.database import Database
from fairlead.web.dashboard.agreement import agreement_of
from fairlead.web.dashboard.criteria import criteria_of
from fairlead.web.dashboard.keeping import large_projects, made_here
from fairlead.web.dashboard.labels import labels_of
from fairlead.web.dashboard.raters import raters_of
from fairlead.web.dashboard.versions import figures_of
from fairlead.web.quality import quality_of

READINGS = (quality_of, agreement_of, criteria_of, raters_of, figures_of, labels_of)


def prepare_beside(database: Database) -> threading.Thread:
    """Begin; it ends by itself, and with the process."""
    thread = threading.Thread(target=prepare, args=(database,), name="prepare", daemon=True)
    thread.start()
    return thread


def prepare(database: Database) -> int:
    """Make every reading of every large project; return how many projects there are."""
    names = large_projects(database)
    with made_here():
        for project_id in names:
            for reading in READINGS:
                reading(database, project_id)
    return len(names)
