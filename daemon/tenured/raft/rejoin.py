"""An empty disk: found a new cluster, or come back into one without doing harm. The argument is docs/adr/0005.

A disk starts without a vote. Identities of servers are fixed, disks are not: the server may have promised, on a disk
that is gone, to follow a term, and acknowledged entries. So it asks all others (`Rejoin`, with a nonce of this life),
and then

* founds, if *every* other server answered in this life that it is empty too, or virgin: then nobody ever got a promise;
* else acknowledges nothing until so many others told their term that one of them knows every term that the lost disk
  may have voted in (K11: a deposed leader committed with the help of an early ack), takes over the highest of these
  terms with its vote spent, and gets a vote of its own once the leader of that term was among them, which makes that
  leader forget the old disk's acks, and its committed prefix covers the end of every log that was named.

Only one disk may be in this state at a time: two lost disks at once are outside the promise.
"""

import logging
from typing import Literal

from tenured.raft.core import Peer, State
from tenured.raft.elections import Elections
from tenured.raft.messages import Rejoin, RejoinReply

logger = logging.getLogger(__name__)

ASKS_A_LINE = 20
"""Log what an empty disk waits for at every so many questions: some seconds."""

StandingName = Literal["member", "virgin", "empty"]


class Rejoining(Elections):
    """Rule K11 and the founding of a cluster."""

    def prepare_rejoin(self) -> None:
        """Set up before the parent's __init__."""
        self.settled = False  # this life knows every term that a lost disk may have voted in; means nothing for a voter
        self.nonce = self.rng.getrandbits(60)
        self.ask_at = float("-inf")
        self.asked = 0
        self.told: dict[str, RejoinReply] = {}  # the newest answer of each other server that has a vote
        self.untouched: set[str] = set()  # who answered this nonce: empty or virgin

    def begin_disk(self) -> None:
        """Write the birth stamp of a new disk. After the parent's __init__."""
        if not self.log.born:
            self.log.set_standing(voter=False, born=self.birth())

    def is_untouched(self) -> bool:
        """Nothing ever happened to this disk: no term, no vote, no entry beyond the bootstrap."""
        return self.current_term == 0 and self.voted_for is None and self.log.last.index == 1

    def founds(self) -> bool:
        """Every other server said in this life of ours that it has seen nothing."""
        return self.is_untouched() and self.untouched == set(self.peers)

    def enough(self, yes: int) -> bool:
        """For the first election everybody: each has its vote on its disk by then.

        Once somebody has stood, an empty disk finds a member and founds no more. If those with a vote were no majority
        then, nobody would ever lead.
        """
        return yes == self.voters if self.is_untouched() else super().enough(yes)

    def may_acknowledge(self) -> bool:
        """Whether an ack of this server can do no harm (see the top)."""
        return self.log.voter or self.settled

    def rejoin(self) -> None:
        """Once a tick, while the disk has no vote."""
        if self.log.voter:
            return
        if self.founds():
            logger.info("%s founds a cluster with %s", self.config.name, ", ".join(self.peers) or "nobody else")
            self.log.set_standing(voter=True, born=self.log.born)
            return
        self.settle()
        if self.settled and self.caught_up():
            logger.info("%s has its vote back at term %d", self.config.name, self.current_term)
            self.log.set_standing(voter=True, born=self.log.born)
        elif self.now() > self.ask_at:
            self.ask()

    def ask(self) -> None:
        """Again and again: answers change, and get lost."""
        self.ask_at = self.now() + self.config.election_min_s
        self.say_to_all(Rejoin(term=self.current_term, nonce=self.nonce, born=self.log.born))
        self.asked += 1
        if self.asked % ASKS_A_LINE == 0:
            silent = sorted(set(self.peers) - set(self.told) - self.untouched)
            waits_for = f"an answer of {', '.join(silent)}" if silent else "the entries that the others have"
            logger.info("%s has an empty disk and no vote yet; it waits for %s", self.config.name, waits_for)

    def settle(self) -> None:
        """Take over the highest term of n - majority + 1 others, with the vote in it spent.

        While all of them are at term 0 there is no promise to guard, and founding stays possible.
        """
        term = max((reply.term for reply in self.told.values()), default=0)
        if term == 0 or len(self.told) < (self.voters + 1) // 2:
            return
        if term >= self.current_term and self.voted_for is None:
            self.set_term(term, "-")
        self.settled = True

    def caught_up(self) -> bool:
        """The leader of the highest term knows of this disk, and every index that was named is committed here."""
        term = max(reply.term for reply in self.told.values())
        led = any(reply.leads and reply.term == term for reply in self.told.values())
        return led and self.commit_index >= max(reply.last_index for reply in self.told.values())

    def on_rejoin(self, peer: Peer, message: Rejoin) -> None:
        """Tell an asker what this server knows. One that is on its way back itself knows nothing, and is silent."""
        untouched = self.is_untouched()
        if not self.log.voter and not untouched:
            return
        known = self.born_of.get(peer.name, 0)
        leads = self.state == State.LEADER and self.knows_disk(peer, message.born)
        standing: StandingName = "member" if not untouched else "virgin" if self.log.voter else "empty"
        self.say(
            peer,
            RejoinReply(
                term=self.current_term,
                nonce=message.nonce,
                last_index=self.log.last.index,
                leads=leads,
                born=known,
                standing=standing,
            ),
        )

    def on_rejoin_reply(self, peer: Peer, message: RejoinReply) -> None:
        """Keep the newest answer of each; an answer to an earlier life counts for nothing."""
        if self.log.voter or message.nonce != self.nonce:
            return
        if message.born > self.log.born:
            # The wall clock went back between two disks: outbid the stamp of the old one, or its heirs ignore our acks.
            self.log.set_standing(voter=False, born=message.born + 1)
        if message.standing == "member":
            self.untouched.discard(peer.name)
        else:
            self.untouched.add(peer.name)
        if message.standing != "empty":
            self.remember(peer, message)

    def remember(self, peer: Peer, message: RejoinReply) -> None:
        """Highest index and leadership are kept over several answers of one term."""
        before = self.told.get(peer.name)
        if before is not None and message.term < before.term:
            return
        led = message.leads or (before is not None and before.term == message.term and before.leads)
        last = max(message.last_index, before.last_index if before is not None else 0)
        self.told[peer.name] = RejoinReply(
            term=message.term,
            nonce=message.nonce,
            last_index=last,
            leads=led,
            born=message.born,
            standing=message.standing,
        )
