"""The one door for changes: validate, compare-and-set, wait for every worker; and looking at what is in force.

Belongs here: what a change has to satisfy and what came of it. Never here: HTTP, or being called from the data plane.
"""

from gateway.controlplane.convergence import Published
from gateway.controlplane.lookups import ModelEntry, shown
from gateway.controlplane.plane import ControlPlane
from gateway.controlplane.publishing import Origin
from gateway.controlplane.storewatch import StoreWatch

__all__ = ["ControlPlane", "ModelEntry", "Origin", "Published", "StoreWatch", "shown"]
