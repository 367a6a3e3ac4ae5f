"""A real s3 server for the tests: started on loopback, with a directory of its own."""
