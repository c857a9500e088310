"""Every decision of the operator: pure functions from what was gathered to what is to be done. Time is an argument.

`agents` and `clusters` decide for one object each, `conditions` and `transitions` turn findings into what users read.
"""
