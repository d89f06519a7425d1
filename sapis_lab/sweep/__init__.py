"""Studies: a lattice of points, one process each, and the table they end in.

A request (`request`) becomes a planned study (`planned_study`): settings (`study`), the lattice (`points`),
what it will cost (`plan`), and what it runs on (`resources`). `run_study` makes its data (`prepare`) and
gives its points to the engine (`engine`), here or through Slurm (`submission`); what they found is written
and printed by `answers`. `folder`, `lock`, `manifest`, `keep` and `whole` see a results folder from its files
alone, and import nothing heavy; `board`, `plan_screen` and `status` are what is on the screen.
"""
