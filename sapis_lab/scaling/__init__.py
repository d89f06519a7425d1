"""Deciding what to run next: policies on the table of runs so far, designs, synthetic worlds, and the road of
`sapis scale`."""
