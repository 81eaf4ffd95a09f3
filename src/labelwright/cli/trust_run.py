"""trust: run and render."""
