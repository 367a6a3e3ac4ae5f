"""A real redis server for the tests: started on loopback, with a directory of its own."""
