"""Jobs: folders in which a function works, each in a process of its own, whatever that function does.

`executor` says what a job is and what runs it (`sapis_lab.executors`); `run` runs jobs to their end,
`launcher` forks their processes, `folder` reads what they leave. `events` and `event_log`, `notices` and
`signals` are what is said to and by people meanwhile.
"""
