"""The one door for changes: validate, compare-and-set, wait for every worker; and looking at what is in force.

Belongs here: what a change has to satisfy and what came of it. Never here: HTTP, or being called from the data plane.
"""

from gateway.controlplane.archiving import Archivist
from gateway.controlplane.confirming import Confirmations
from gateway.controlplane.convergence import DocumentOutcome, Published
from gateway.controlplane.differences import FieldDifference
from gateway.controlplane.documents import shown
from gateway.controlplane.impaired import Braked, Impaired
from gateway.controlplane.lookups import ModelEntry
from gateway.controlplane.past import Past
from gateway.controlplane.plane import ControlPlane
from gateway.controlplane.previewing import ChangePreview, Traffic
from gateway.controlplane.proposal import Proposed, Terms
from gateway.controlplane.questions import Explained, Question
from gateway.controlplane.resettling import Resettled
from gateway.controlplane.status import Status, StoreStatus, WorkerStatus
from gateway.controlplane.storewatch import StoreWatch
from gateway.controlplane.terms import Origin

__all__ = [
    "Archivist",
    "Braked",
    "ChangePreview",
    "Confirmations",
    "ControlPlane",
    "DocumentOutcome",
    "Explained",
    "FieldDifference",
    "Impaired",
    "ModelEntry",
    "Origin",
    "Past",
    "Proposed",
    "Published",
    "Question",
    "Resettled",
    "Status",
    "StoreStatus",
    "StoreWatch",
    "Terms",
    "Traffic",
    "WorkerStatus",
    "shown",
]
