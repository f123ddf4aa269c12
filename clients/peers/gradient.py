"""A node's exact gradient at a point of its own."""

from fedzo.protocol.questions.peers import PeerGradient, PeerGradients
from fedzo.runtime.local import Answered, Clients


def answer_peer_gradient(question: PeerGradient, clients: Clients) -> Answered:
    """Answer one gradient each [n, d]."""
    return PeerGradients(gradient=clients.oracle.gradient(question.point)), clients.states
