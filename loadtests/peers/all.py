"""Every peer of the comparison, in the order of its table.

Belongs here: the list. Never here: anything about one of them.
"""

from loadtests.peers.chats import LiteLLM, Portkey
from loadtests.peers.gateways import PointsmanForward, PointsmanInProcess
from loadtests.peers.peer import Peer
from loadtests.peers.proxies import Envoy, Nginx
from loadtests.peers.servers import BentoML, KServe, LitServe, MLServer

PEERS: tuple[Peer, ...] = (
    PointsmanForward(),
    Envoy(),
    Nginx(),
    LiteLLM(),
    Portkey(),
    PointsmanInProcess(),
    MLServer(),
    KServe(),
    LitServe(),
    BentoML(),
)


def label(peer: Peer) -> str:
    """Return the name that tells a peer from every other, also on the command line."""
    return f"{peer.name.lower()}{'-in-process' if peer.name == 'Pointsman' and peer.task == 'in process' else ''}"
