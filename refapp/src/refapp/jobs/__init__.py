"""Jobs: accepted in a transaction, run by worker processes, each effect once.

Procrastinate's tables are the queue: what waits, in which order, and which worker has it. The
table `jobs` is the truth of a job's state. Each row of it names the one queue entry that may run
it, and every start has a number, so that a process which was thought dead can do no harm.
"""
