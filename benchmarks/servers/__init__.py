"""Servers for tests and benchmarks: started on loopback, with directories of their own."""
