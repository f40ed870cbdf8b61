"""Every peer of the comparison, in the order of its table.

Belongs here: the list. Never here: anything about one of them.
"""

from loadtests.peers.chats import LiteLLM, Portkey
from loadtests.peers.gateways import PointsmanForward, PointsmanInProcess
from loadtests.peers.peer import Peer
from loadtests.peers.proxies import Envoy, Nginx
from loadtests.peers.servers import BentoML, KServe, LitServe, MLServer

PEERS: tuple[Peer, ...] = (
    PointsmanForward(compiled=True),
    PointsmanForward(),
    Envoy(),
    Nginx(),
    LiteLLM(),
    Portkey(),
    PointsmanInProcess(compiled=True),
    PointsmanInProcess(),
    MLServer(),
    KServe(),
    LitServe(),
    BentoML(),
)


def label(peer: Peer) -> str:
    """Return the name that tells a peer from every other, also on the command line."""
    ours_in_process = peer.name.startswith("Pointsman") and peer.task == "in process"
    return peer.name.lower().replace(" ", "-") + ("-in-process" if ours_in_process else "")
