"""How fast the store is, as ratios against floors measured in the same run.

`python -m benchmarks save load list contention lag append update growth` (or `all`). A floor is
what the work costs at the least: the same system calls inline in one thread, the same bytes
decoded once by msgspec.

- `save`, `load`, `list`, `contention`, `lag`, `append`, `update`, `growth`: the measurements, one
  `measure` function each.
- `measure`: contestants in turn, medians, ratios.  `report`: figures, tables, JSON, plots.
- `data`: seeded sessions.  `plain`: the model as plain msgspec structs.  `floors`: raw sequences.
- `rows`: durable inserts by aiosqlite.
- `ticker`: how late an event loop is.  `syscalls`, `traced`: what one call asks of the system.
- `machine`: where it ran.
"""
