"""Voting over answers: who wins, when that is certain, and whose text is returned.

`Vote` is what a decoder uses; the parts below it can be used alone. Nothing here knows models,
texts or clocks: an answer is any hashable key, and time is a path's own token count.
"""

from decoders.core.voting.ballots import Ballot, Standing, decided, returned, tally, winner
from decoders.core.voting.orders import IndexOrder, VirtualOrder
from decoders.core.voting.probability import leader_probability, probable
from decoders.core.voting.vote import Savings, Vote, savings

__all__ = [
    "Ballot",
    "IndexOrder",
    "Savings",
    "Standing",
    "VirtualOrder",
    "Vote",
    "decided",
    "leader_probability",
    "probable",
    "returned",
    "savings",
    "tally",
    "winner",
]
