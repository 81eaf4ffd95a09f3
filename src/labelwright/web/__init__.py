"""The experts' page: people answer the loop's questions in a browser. :func:`create_app` makes it, ``labelwright serve`` runs it.

static/htmx.min.js is htmx 2.0.11 (Zero-Clause BSD), vendored so that the page works offline.
"""
