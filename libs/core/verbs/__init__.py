"""The verbs: what can be done to tasks. Each takes an open transaction and a batch, and never commits.

`core.queue_manager` is their public face.
"""
