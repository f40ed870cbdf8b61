"""The programs that are measured beside each other, Pointsman among them, all behind one seam (`peer.Peer`).

Belongs here: how each is installed, configured and started, in its own cheapest honest way. Never here: measuring.
One `.txt` a peer pins what is installed; `programs/` runs inside the peers' own environments and imports nothing of
ours.
"""
