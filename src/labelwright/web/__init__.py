"""The experts' page: people answer the loop's questions in a browser. :func:`create_app` makes it, ``labelwright serve`` runs it."""
