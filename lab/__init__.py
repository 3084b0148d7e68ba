"""The lab: a fleet of Podman containers on this machine, reached by SSH like any hosts."""
