"""A real postgres server for the tests: started on loopback, with a directory of its own."""
