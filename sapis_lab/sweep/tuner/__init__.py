"""Tuning: the search for good settings of a study's points, by Optuna. The only place that knows Optuna.

`options` is the `tune:` section of a study file, `space` the settings that a trial gets, `tickets` what is
kept in Optuna's storage so that no trial is lost or counted twice, `one_host` and `many_hosts` run the
trials, `table` says what came of them. `run_tune` and `run_worker` lead a request (`request`) through its
`session` to its `answers`; `status` looks at it meanwhile.
"""
