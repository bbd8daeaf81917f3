"""Shows recorded results as tables, as plots and in a terminal."""
