"""Reads and writes samples as files hold them, a module for each kind of file; ../samples.py is the way in.

registry.py knows which module reads a file. stored.py says what all of them give. conversion.py turns that into the
channels and the type that a domain has.
"""
