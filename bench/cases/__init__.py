"""Makes what is measured: operators, networks, training steps, data, translation, export, and their opponents."""
