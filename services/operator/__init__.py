"""The operator: as many workers for each TaskQueue as its tasks want, and never one that is at work taken away."""
