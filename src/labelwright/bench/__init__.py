"""The paper's experiments as functions. Only this package, the omniscient baselines and the report read the truth."""
