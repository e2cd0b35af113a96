"""The long-form fault suite: real processes under load, killed and frozen by a seeded schedule, then checked.

    python -m tests.faults.suite --minutes 20 --seed 7

The schedule of faults depends on the seed and the minutes alone and is printed first, so a run can be repeated. Every
process is the suite's own; it listens on loopback and ends by itself.
"""
