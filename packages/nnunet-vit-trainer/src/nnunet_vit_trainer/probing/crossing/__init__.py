"""Probes that are fitted on some cases and scored on others."""
