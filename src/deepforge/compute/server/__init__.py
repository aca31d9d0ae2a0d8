"""Server Compute: jobs on the server's own machine.

`adapter` is what the server loads. `supervisor` is a small process of its own that outlives it and
owns the queue (`jobs`). It forks processes that wait for jobs (`pool`); `launch` is what happens in
them, `between` how they run one job after another, `processes` how they are found and ended,
`folder` what lies on the disk, `wire` how the two sides talk.
The supervisor's side uses the standard library alone: what it imports, every fork pays for.
"""
