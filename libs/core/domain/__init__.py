"""The pure middle of TaskFlow: it decides, others do.

Standard library only. No clock, no randomness, no input or output.
"""
