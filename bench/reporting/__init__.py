"""Tables and plots of recorded results."""
