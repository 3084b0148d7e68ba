"""Evenkeel's reference application: every pattern of a scaled-out web application, working.

Empty, because gunicorn's master imports the package for its settings: what the master has
imported its workers can't reload, and the metrics must not be set up before them.
"""
