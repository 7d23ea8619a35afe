"""Measuring: timing, statistics, trials and their frontier."""
