"""Measures: Parley beside the floor, a bare server of the same stack, interleaved in one run."""
