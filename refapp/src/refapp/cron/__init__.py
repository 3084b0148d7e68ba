"""Cron: a schedule in code; one elected process of the fleet enqueues each tick, once."""
