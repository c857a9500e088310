"""The objects that an AgentCluster owns, one module each. Pure: from the cluster's spec to manifests.

`plan.objects` lists all of them. Every pod passes Pod Security `restricted`.
"""
