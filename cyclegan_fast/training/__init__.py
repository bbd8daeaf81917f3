"""Trains: the session, its loop, what a checkpoint holds, one step, and the records that a run leaves."""
