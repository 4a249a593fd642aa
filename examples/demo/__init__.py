"""TaskFlow on real input: `python -m examples.demo`, or `make demo`.

It counts lines, words and identifiers of every source file of Python's standard library, in separate processes, and
compares each result with one of its own. CHAOS=1 breaks things meanwhile; REDIS=off runs without Redis.
"""
