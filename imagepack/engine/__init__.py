"""How stages run: the runner, worker processes, the memo, a cluster.

It moves work about and changes no byte of a result, so no stage lists it as a dep.
"""
