"""The one catalogue of reasons: why an agent, a host or a cluster is as it is, and what its user can do next.

A reason is a CamelCase word that machines compare; people read the sentence beside it and the next step. The words
are those of the status fields, conditions, events, CLI messages and metrics. Nothing outside this file invents one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """A reason, with what the user can do about it (`next_step`, one sentence, empty when there is nothing to do)."""

    next_step: str

    def __new__(cls, value: str, next_step: str = "") -> Self:
        """Keep the next step beside the word."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.next_step = next_step
        return member

    # --- what was asked for cannot be accepted -----------------------------------------------------------------

    CLUSTER_NOT_FOUND = (
        "ClusterNotFound",
        "Create the AgentCluster in this namespace, or name another in spec.clusterRef.",
    )
    """The namespace has no AgentCluster, or not the one that is named."""
    CLUSTER_AMBIGUOUS = "ClusterAmbiguous", "Name one AgentCluster in spec.clusterRef.name."
    """The namespace has several AgentClusters and the agent names none."""
    POOL_NOT_FOUND = "PoolNotFound", "Add the pool to the AgentCluster, or correct spec.pool."
    """The cluster has no such pool."""
    CLASS_NOT_FOUND = "ClassNotFound", "Add the class to a module of the pool, or correct spec.class."
    """No ready host of the pool offers the class."""
    SPEC_INVALID = "SpecInvalid", "Correct the field that the message names and apply again."
    """A field of what was asked for has an impossible value."""
    STATE_INVALID = "StateInvalid", "Correct spec.state so that the class's state accepts it."
    """The initial or the stored state does not validate against the class."""
    STATE_IGNORED = (
        "StateIgnored",
        "State lives in the agent now: change it by an action, or delete the agent and create it anew.",
    )
    """spec.state was edited after the agent was created; only its first value counts."""
    IMMUTABLE_FIELD = "ImmutableField", "Delete the agent and create it with the new value."
    """A field that is fixed for life was edited."""
    MANAGED_ELSEWHERE = "ManagedElsewhere", "Use the command in the message."
    """The row belongs to the other door: Kubernetes objects and API rows are not mixed."""
    CONFLICT = "Conflict", "Read it again, and repeat the change on what it is now."
    """Something else was asked for since the revision on which the change was based."""
    NAME_TAKEN = "NameTaken", "Choose another name, or delete the agent that has it."
    """Another agent, or an earlier object of the same name, still has this name."""

    # --- it cannot be placed now ----------------------------------------------------------------------------------

    NO_HOST_FITS = "NoHostFits", "Add hosts to the pool, free resources, or relax what the agent asks for."
    """No host of the pool passes all filters."""
    CAPABILITY_MISSING = (
        "CapabilityMissing",
        "Give a pool that capability, or start a host with --capability, or correct placement.requires.",
    )
    """No host of the pool has a capability that the agent requires."""
    NO_ROOM = "NoRoom", "Add hosts to the pool, free resources, or ask for less."
    """The host has no room left for what is asked of it; nothing is ever oversubscribed."""
    FAILOVER_PACED = "FailoverPaced", "Wait: agents of lost hosts start a bounded number at a time."
    """Its host was lost together with many agents, and it waits for its turn to start elsewhere."""
    FAILOVER_HELD = (
        "FailoverHeld",
        "Look at the network and the nodes; `tenure failover confirm` moves the agents at once.",
    )
    """Many hosts fell silent at once: nothing is moved before that is confirmed."""
    IMPORT_FAILED = "ImportFailed", "Fix the error in the pool's modules and roll out the image."
    """The pool's modules cannot be imported, so no worker serves."""
    VERSION_SKEW = "VersionSkew", "Build the image with an SDK version that this cluster serves."
    """The worker's link version is not one that the daemon serves."""

    # --- where it is and why ------------------------------------------------------------------------------------------

    SCHEDULED = "Scheduled"
    """First placement."""
    RUNNING = "Running"
    """Held, activated, and its user code has answered."""
    STARTING = "Starting"
    """Assigned; sealing, reading its state, or waiting for its worker."""
    HOST_LOST = "HostLost"
    """Its host is provably dead: another process holds the lock that the host held."""
    LEASE_EXPIRED = "LeaseExpired"
    """Its host was silent until its lease had provably ended."""
    RELEASED = "Released"
    """Its host gave it up."""
    DRAINING = "Draining"
    """Its host or node is being drained."""
    DELETING = "Deleting", "Wait until it is gone."
    """It is being deleted and stops where it runs."""
    ENDED = "Ended", "Delete the Agent; apply it again to begin anew."
    """It has ended by itself (`ctx.stop`), and is not started again."""
    HIBERNATED = "Hibernated"
    """It had nothing to do and is not in memory; a call, a signal or a timer brings it back."""
    HOST_SILENT = "HostSilent"
    """Its host has not been heard of for longer than it should; its lease has not provably ended yet."""
    CAPACITY_RETURNED = "CapacityReturned"
    """Not critical: its node did not come back, and its pool has as many ready hosts again as before."""
    NODE_LOST = "NodeLost", "Bring the node back, or set spec.critical to true to let it move."
    """Not critical: it waits for the node whose host was lost."""

    # --- it fails ---------------------------------------------------------------------------------------------------

    ACTIVATION_FAILED = "ActivationFailed", "Read `tenure logs` of the agent; it is tried again by itself."
    """User code raised while the agent was activated."""
    CRASH_LOOP = "CrashLoopBackOff", "Read `tenure logs` of the agent, fix its code, and roll out the image."
    """It keeps failing and is tried again with growing pauses."""
    PAUSED = (
        "Paused",
        "`tenure resume` tries the signal again, `tenure skip` makes it a dead letter, `tenure redrive` puts it last.",
    )
    """A signal failed for the last time, and spec.onExhausted is Pause: it keeps its order and takes nothing new."""
    DEAD_LETTERS = "DeadLetters", "`tenure dlq list` shows them; mend the cause, then `tenure dlq redrive`."
    """It put aside signals that it could not process or deliver."""
    WORKER_LOST = "WorkerLost"
    """The process that ran it ended; it is activated again under the same epoch."""
    STATE_UNREADABLE = (
        "StateUnreadable",
        "Do not delete the agent: restore the servers' volumes, or ask for help with the record's uid.",
    )
    """The store has no readable state although one was committed; it stays down rather than start empty."""

    # --- the cluster ------------------------------------------------------------------------------------------------

    NO_QUORUM = "NoQuorum", "Bring back a majority of the servers."
    """Too few servers are up to decide or to commit anything."""
    EPHEMERAL_STORAGE = (
        "EphemeralStorage",
        "Use storage.type PersistentVolumeClaim to keep state when all servers are lost.",
    )
    """The servers keep their disks only as long as their pods."""
    DELETION_BLOCKED = (
        "DeletionBlocked",
        'Delete the agents first, or annotate the cluster with tenure.dev/delete-agents: "true".',
    )
    """The cluster still has agents and is not torn down."""
    DISK_REPLACED = "DiskReplaced"
    """A server came back without its disk; it joins without a vote until it has caught up."""
    SERVER_JOINING = "ServerJoining", "Wait until the other server has joined (`tenure status`)."
    """Another server's new disk is still reading what the others hold; one disk is replaced at a time."""
    INCARNATION_ENDED = "IncarnationEnded", "The host registers again under a new incarnation by itself."
    """The host process was declared dead; it never comes back under that incarnation."""
    STALE_ASSIGNMENT = "StaleAssignment"
    """The assignment changed meanwhile (compare-and-set), or its holder has neither released it nor expired (rule R).
    """
    COMMAND_INVALID = "CommandInvalid"
    """An entry of the log that this version cannot read or that makes no sense."""

    # --- resources on Kubernetes --------------------------------------------------------------------------------------

    ACCEPTED = "Accepted"
    """What was asked for has been taken up."""
    AS_EXPECTED = "AsExpected"
    """There is nothing to say."""
    SERVERS_STARTING = "ServersStarting"
    """Servers are starting or catching up."""
    SERVER_FAILING = "ServerFailing", "`kubectl describe pod` and `kubectl logs` of the server say more."
    """The pod of a server cannot run."""
    CLAIM_WAITING = (
        "ClaimWaiting",
        "Make a default StorageClass, name one in servers.storage, or use storage.type Ephemeral for a trial.",
    )
    """A server waits for its volume."""
    HOSTS_STARTING = "HostsStarting"
    """Hosts of a pool are starting."""
    ROLLING = "Rolling"
    """Pods are being replaced by those of a new specification."""
    OBJECT_REFUSED = "ObjectRefused", "Correct the field that the message names."
    """The API server refused an object that the AgentCluster needs."""
    AUTHORITY_UNUSABLE = "AuthorityUnusable", "Restore the Secret from a backup; a new authority cuts every host off."
    """The Secret with the cluster's authority cannot be read; it is never replaced by itself."""
