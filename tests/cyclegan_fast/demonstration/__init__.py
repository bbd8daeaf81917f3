"""Test the page that shows what a run's generators do."""
