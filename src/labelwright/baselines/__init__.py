"""Baselines: configurations that a method is compared with."""
